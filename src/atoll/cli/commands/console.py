"""`console`: sit at an instance's console, or see what it showed."""

from __future__ import annotations

import sys

from atoll.cli import raw_terminal
from atoll.cli.commands import execute
from atoll.cli.errors import CommandError
from atoll.client.address import url
from atoll.client.server import SUCCESS, decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from atoll.cli.session import Call
    from atoll.client.server import Server

ESCAPE, LEAVE = 0x01, ord("q")
HOW_TO_LEAVE = "To detach from the console, press: <ctrl>+a q\n\r"


def run(call: Call) -> int:
    """Attach, or show the log."""
    kind = call.flags.text("type")
    check_kind(kind)
    server, name = call.required(call.arguments[0], "instance name")
    if not call.flags.on("show-log"):
        return attach(server, name, kind)
    if kind != "console":
        raise CommandError("The --show-log flag is only supported for by 'console' output type")
    sys.stdout.write("\nConsole log:\n\n")
    sys.stdout.flush()
    answer = server.exchange("GET", url("instances", name, "console"), {})
    if answer.status != SUCCESS:
        decode(answer)
    sys.stdout.buffer.write(answer.body + b"\n")
    return 0


def check_kind(kind: str) -> None:
    """CommandError for what is no kind of console."""
    if kind not in ("console", "vga"):
        raise CommandError(f'Unknown output type "{kind}"')


def attach(server: Server, name: str, kind: str) -> int:
    """Attach until the instance ends or the user leaves."""
    sys.stdout.write(HOW_TO_LEAVE)
    sys.stdout.flush()
    width, height = execute.size()
    body = {"width": width, "height": height, "type": kind}
    path, links = execute.connections(server.request("POST", url("instances", name, "console"), body))
    control = links.pop("control")
    sockets = {key: server.websocket(link) for key, link in links.items()}
    server.send("GET", path + "/wait", {})
    with raw_terminal.raw(0):
        return Attachment(server, sockets, lambda: server.websocket(control), read_input=True, control_after=0).run()


class Attachment(execute.Exchange):
    """The console's stream. Its control channel is to be opened at once: servers may wait for it."""

    _escaped = False

    def typed(self, data: bytes) -> bytes:
        """Ctrl-a and q leave; Ctrl-a alone is what comes after it, be it another Ctrl-a."""
        passed = bytearray()
        for key in data:
            if key == ESCAPE and not self._escaped:
                self._escaped = True
                continue
            if key == LEAVE and self._escaped:
                self.leave()
                break
            self._escaped = False
            passed.append(key)
        return bytes(passed)

    def end_input(self) -> None:
        """Nobody types any more."""
        self.leave()
