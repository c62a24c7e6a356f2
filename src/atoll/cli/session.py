"""What every command gets: its arguments and flags, the configuration, and servers by name."""

from __future__ import annotations

import sys

from atoll.cli.errors import CommandError
from atoll.client import address
from atoll.client.errors import ServerError
from atoll.client.http1 import connect_unix
from atoll.client.server import Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from atoll.cli.arguments import Flags
    from atoll.cli.config import Config
    from atoll.client.http1 import Stream
    from atoll.client.server import Answer

PATIENCE = 3


class Call:
    """One call of one command."""

    def __init__(self, path: str, arguments: list[str], flags: Flags, config: Config) -> None:
        self.path = path
        self.arguments = arguments
        self.flags = flags
        self.config = config
        self._servers: dict[str, Server] = {}

    def server(self, remote: str) -> Server:
        """The server of a remote, one and the same for each name."""
        if self.flags.on("force-local"):
            remote = "local"
        if remote not in self._servers and self.config.remotes[remote].get("protocol") == "simplestreams":
            self._servers[remote] = self._image_server(remote)
        if remote not in self._servers:
            self._servers[remote] = Server(
                self._connector(remote),
                project=self.flags.text("project") or self.config.project(remote),
                target=self.flags.text("target"),
                trace=_trace if self.flags.on("debug") else None,
            )
        return self._servers[remote]

    def _connector(self, remote: str) -> Callable[[], Stream]:
        where = self.config.remotes[remote]
        url = where.get("addr") or ""
        if url.startswith("unix:"):
            path = url.removeprefix("unix:").removeprefix("//") or address.local_socket()
            return lambda: connect_unix(path)
        return lambda: _connect_tls(url, self.config, remote)

    def _image_server(self, remote: str) -> Server:
        from atoll.client import streams, tls

        known = tls.read_known(self.config.known_path(remote))
        trace = _trace if self.flags.on("debug") else None
        return streams.ImageServer(self.config.remotes[remote].get("addr") or "", known=known, trace=trace)

    def resolve(self, text: str) -> tuple[Server, str]:
        """ "remote:name" into the server and the name."""
        remote, name = self.config.split(text)
        return self.server(remote), name

    def required(self, text: str, what: str) -> tuple[Server, str]:
        """`resolve`, for a name that may not be empty; `what` names the missing thing in the error."""
        server, name = self.resolve(text)
        if not name:
            raise CommandError(f"Missing {what}")
        return server, name

    def split_remote(self, arguments: list[str]) -> tuple[Server, list[str]]:
        """A leading "remote:" taken off a list of filters."""
        if arguments and ":" in arguments[0] and not arguments[0].partition(":")[2]:
            server, _ = self.resolve(arguments[0])
            return server, arguments[1:]
        return self.server(self.config.default_remote), arguments

    def change(self, server: Server, method: str, path: str, body: object = None, *, etag: str = "", label: str = "") -> Answer:
        """A changing request, waited for; `metadata` is then the ended operation. `label` names what progresses."""
        answer = server.request(method, path, body, etag=etag)
        if answer.operation:
            answer.metadata = self.wait(server, answer.operation, label)
        return answer

    def wait(self, server: Server, operation: str, label: str = "") -> dict[str, Any]:
        """Wait for an operation, with a progress line where someone looks. The first Ctrl-C cancels an operation that can be
        cancelled, the third leaves any other to itself: both end in a CommandError."""
        progress = self.progress(label)
        refusals = 0

        def interrupted() -> None:
            nonlocal refusals
            try:
                server.cancel(operation)
            except ServerError as error:
                refusals += 1
                if refusals == PATIENCE:
                    raise CommandError("User signaled us three times, exiting. The remote operation will keep running") from error
                _warn(f"{error} (interrupt two more times to force)", progress)
            else:
                raise CommandError("Remote operation canceled by user")

        try:
            return server.wait(operation, progress=progress, interrupted=interrupted)
        finally:
            if progress is not None:
                progress.clear()

    def progress(self, label: str = "") -> Any:
        """A progress line, or None when nobody looks or --quiet was given."""
        if self.flags.on("quiet") or not sys.stdout.isatty():
            return None
        from atoll.cli.terminal import Progress

        return Progress(label)

    def say(self, text: str) -> None:
        """A line for people, which --quiet leaves out."""
        if not self.flags.on("quiet"):
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def close(self) -> None:
        """Close all connections."""
        for server in self._servers.values():
            server.close()


def _connect_tls(url: str, config: Config, remote: str) -> Stream:
    from atoll.client import tls

    return tls.connect(url, config.identity(), known=tls.read_known(config.known_path(remote)))


def _warn(text: str, progress: Any) -> None:
    """Tell of something on the way, on the progress line where there is one."""
    if progress is not None:
        progress.show(text)
    else:
        sys.stderr.write(text + "\n")


def _trace(text: str) -> None:
    sys.stderr.write(f"DEBUG {text}\n")
