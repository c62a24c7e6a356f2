"""`exec`: run a command in an instance.

One POST starts the command; the websockets of its streams are then all asked for before the first answer is read, and the
wait for the end of the operation is already under way on the first connection. One poll loop serves them all.

The control channel carries signals and window sizes, and tells the server that we are still here: a command whose client dies
dies too. It is opened for the first of these, or when a command runs for longer than a moment; most do not.
"""

from __future__ import annotations

import errno
import posix
import select
import sys
import time

from atoll.cli import terminal
from atoll.cli.errors import CommandError
from atoll.client import codec, websocket
from atoll.client.address import url, variable
from atoll.client.errors import ClientError
from atoll.client.server import decode, ended

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from atoll.cli.session import Call
    from atoll.client.server import Answer, Server
    from atoll.client.websocket import WebSocket

CHUNK = 32 * 1024  # a socket that can be written to takes this much without a wait
DRAIN_SECONDS = 1.0
CONTROL_SECONDS = 0.05  # after which the control channel is opened in any case
END_OF_TRANSMISSION = b"\x04"
FORWARDED = ("SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT", "SIGABRT", "SIGUSR1", "SIGUSR2", "SIGCONT", "SIGTSTP")


def run(call: Call) -> int:
    """Run the command; its exit status becomes ours."""
    server, name = call.required(call.arguments[0], "instance name")
    interactive = _is_interactive(call)
    body = _body(call, interactive=interactive)
    answer = server.request("POST", url("instances", name, "exec"), body)
    path, links = connections(answer)
    control = links.pop("control")
    sockets = {key: server.websocket(link) for key, link in links.items()}
    server.send("GET", path + "/wait", {})
    exchange = Exchange(server, sockets, lambda: server.websocket(control), read_input=not call.flags.on("disable-stdin"))
    if not interactive:
        return exchange.run()
    from atoll.cli import raw_terminal

    with raw_terminal.raw(0):
        return exchange.run()


def connections(answer: Answer) -> tuple[str, dict[str, str]]:
    """The URL of a websocket operation, and that of each of its websockets by name."""
    path = answer.operation.partition("?")[0]
    secrets = (answer.metadata.get("metadata") or {})["fds"]
    return path, {key: f"{path}/websocket?secret={secret}" for key, secret in secrets.items()}


def _is_interactive(call: Call) -> bool:
    """Whether the command gets a terminal."""
    flags = call.flags
    if flags.on("force-interactive") and flags.on("force-noninteractive"):
        raise CommandError("You can't pass -t and -T at the same time")
    mode = flags.text("mode")
    if mode != "auto" and (flags.on("force-interactive") or flags.on("force-noninteractive")):
        raise CommandError("You can't pass -t or -T at the same time as --mode")
    if flags.on("force-interactive") or mode == "interactive":
        return True
    if flags.on("force-noninteractive") or mode == "non-interactive":
        return False
    return not flags.on("disable-stdin") and terminal.is_terminal(0) and terminal.is_terminal(1)


def _body(call: Call, *, interactive: bool) -> dict[str, Any]:
    flags = call.flags
    kind = variable("TERM")
    environment = {"TERM": kind} if kind else {}
    for pair in flags.every("env"):
        key, _, value = pair.partition("=")
        environment[key] = value
    width, height = size() if interactive else (0, 0)
    return {
        "command": call.arguments[1:],
        "wait-for-websocket": True,
        "interactive": interactive,
        "environment": environment,
        "width": width,
        "height": height,
        "user": flags.number("user"),
        "group": flags.number("group"),
        "cwd": flags.text("cwd"),
    }


def size() -> tuple[int, int]:
    """Width and height of our terminal, in characters."""
    try:
        width, height = posix.get_terminal_size(1)
    except OSError:
        return 80, 25
    return width, height


class Exchange:
    """The streams of one running command.

    server: with the wait for the operation's end under way.
    sockets: by the names the API gives them: "0", "1" and "2"; an interactive command has "0" alone.
    open_control: opens the control channel, after `control_after` seconds at the latest.
    """

    def __init__(
        self,
        server: Server,
        sockets: dict[str, WebSocket],
        open_control: Callable[[], WebSocket],
        *,
        read_input: bool,
        control_after: float = CONTROL_SECONDS,
    ) -> None:
        self._server = server
        self._open_control = open_control
        self._control: WebSocket | None = None
        self._control_due = time.monotonic() + control_after
        self._handlers: dict[int, Callable[[], None]] = {}
        self._input = sockets["0"]
        self._outputs: dict[int, tuple[WebSocket, int]] = {}
        for key, socket in sockets.items():
            if key in ("1", "2") or (key == "0" and "1" not in sockets):
                self._outputs[socket.fileno()] = (socket, 2 if key == "2" else 1)
        self._interactive = "1" not in sockets
        self._reading = read_input
        self._input_begun = False
        self._status: int | None = None
        self._left = False
        self._poll = select.poll()

    def run(self) -> int:
        """Pump until the command has ended and its output is written; returns the exit status."""
        with _Signals() as signals:
            self._serve(self._server.fileno(), self._take_result)
            self._serve(signals.fileno(), lambda: self._forward(signals.take()))
            for descriptor in self._outputs:
                self._serve(descriptor, self._output_handler(descriptor))
            if self._input.fileno() not in self._outputs:
                self._serve(self._input.fileno(), self._other_handler(self._input))
            self._pump()
        return self._status or 0

    def typed(self, data: bytes) -> bytes:
        """What of the input is for the other side: all of it."""
        return data

    def leave(self) -> None:
        """Go, and let the server notice."""
        self._left = True
        self._status = 0
        for descriptor in list(self._outputs):
            self._drop(descriptor)
        if self._control is not None:
            self._control.close()

    def _serve(self, descriptor: int, handler: Callable[[], None]) -> None:
        """Call the handler whenever the descriptor can be read."""
        self._handlers[descriptor] = handler
        self._poll.register(descriptor, select.POLLIN)

    def _pump(self) -> None:
        """Until the result is there and the output has ended; a child that holds that open does not hold us for ever."""
        while self._status is None or self._outputs:
            ready = self._poll.poll(self._patience())
            if not ready and self._status is not None:
                return
            for descriptor, events in ready:
                if self._left:
                    return
                if events & select.POLLOUT:
                    self._resume_input()
                if events & ~select.POLLOUT:
                    self._handlers[descriptor]()
            if self._input.opened and not self._input_begun:
                self._begin_input()
            if self._control is None and self._status is None and time.monotonic() >= self._control_due:
                self._reach_control()

    def _patience(self) -> float | None:
        """Milliseconds to wait for something to happen; None: any time."""
        if self._status is not None:
            return DRAIN_SECONDS * 1000
        if self._control is not None:
            return None
        return max(0.0, self._control_due - time.monotonic()) * 1000

    def _reach_control(self) -> WebSocket:
        """The control channel, opened if it is not yet."""
        if self._control is None:
            self._control = self._open_control()
            self._serve(self._control.fileno(), self._other_handler(self._control))
        return self._control

    def _begin_input(self) -> None:
        self._input_begun = True
        if not self._reading:
            self.end_input()
            return
        try:
            self._serve(0, self._take_input)
        except OSError:
            self.end_input()

    def _take_input(self) -> None:
        try:
            data = posix.read(0, CHUNK)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EINTR):
                return
            data = b""  # the terminal has gone (EIO): the same as its end
        if not data:
            self._poll.unregister(0)
            self.end_input()
            return
        data = self.typed(data)
        if self._left or not data:
            return
        try:
            self._input.send_binary(data)
        except OSError:
            self._poll.unregister(0)  # the command reads no more; how it ended comes on the other streams
            return
        if not self._input.closed and not select.select([], [self._input], [], 0)[1]:
            self._pause_input()

    def _pause_input(self) -> None:
        """Take no more input until the server does: a wait for it here would keep us from the output that it waits to send."""
        self._poll.unregister(0)
        self._poll.modify(self._input.fileno(), select.POLLIN | select.POLLOUT)

    def _resume_input(self) -> None:
        self._poll.modify(self._input.fileno(), select.POLLIN)
        self._poll.register(0, select.POLLIN)

    def end_input(self) -> None:
        """End of file: for a terminal the key that means it, else an empty text message."""
        try:
            if self._interactive:
                self._input.send_binary(END_OF_TRANSMISSION)
            else:
                self._input.send_text("")
        except OSError:
            pass  # the command has ended before its input

    def _output_handler(self, descriptor: int) -> Callable[[], None]:
        socket, target = self._outputs[descriptor]

        def take() -> None:
            for kind, data in socket.receive():
                if kind == websocket.BINARY:
                    _write(target, data)
                else:
                    self._drop(descriptor)
            if socket.closed:
                self._drop(descriptor)

        return take

    def _drop(self, descriptor: int) -> None:
        """A stream has ended. The one stream of a terminal is closed here: the server waits for that."""
        if descriptor in self._outputs:
            self._poll.unregister(descriptor)
            socket, _ = self._outputs.pop(descriptor)
            if self._interactive:
                socket.close()

    def _other_handler(self, socket: WebSocket) -> Callable[[], None]:
        def take() -> None:
            try:
                for _ in socket.receive():
                    pass  # nothing is said on these; the upgrade's answer and the end are what arrives
            except (OSError, ClientError):
                socket.closed = True  # a command that ends at once is gone before its control channel is up
            if socket.closed:
                self._poll.unregister(socket.fileno())

        return take

    def _take_result(self) -> None:
        self._poll.unregister(self._server.fileno())
        operation = decode(self._server.receive()).metadata
        status = (operation.get("metadata") or {}).get("return")
        if status is None:
            ended(operation)
        self._status = int(status or 0)
        if operation.get("err"):
            sys.stderr.write(f"Error: {operation['err']}\n")

    def _forward(self, numbers: bytes) -> None:
        """Tell the command of the signals we got."""
        for number in numbers:
            if number == _winch():
                if self._interactive:
                    width, height = size()
                    self._tell({"command": "window-resize", "args": {"width": str(width), "height": str(height)}})
            elif not self._tell({"command": "signal", "signal": number}):
                raise KeyboardInterrupt

    def _tell(self, message: dict[str, Any]) -> bool:
        """Send a control message; False when there is nobody to tell."""
        try:
            control = self._reach_control()
            if control.closed:
                return False
            if not control.opened:
                control.finish_opening()
            control.send_text(codec.dumps(message))
        except (OSError, ClientError):
            return False
        return True


def _winch() -> int:
    import _signal  # type: ignore[import-not-found]

    return int(_signal.SIGWINCH)


def _write(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[posix.write(target, view) :]
        except BlockingIOError:
            select.select([], [target], [])


class _Signals:
    """Signals as bytes on a pipe, for the poll loop. `_signal` is `signal` without its enums (4 ms to import)."""

    def __enter__(self) -> _Signals:
        import _signal

        sys.stdout.flush()
        self._read, self._write = posix.pipe2(posix.O_CLOEXEC | posix.O_NONBLOCK)
        self._wakeup = _signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._before = {}
        for name in (*FORWARDED, "SIGWINCH"):
            number = int(getattr(_signal, name))
            self._before[number] = _signal.signal(number, lambda number, frame: None)
        return self

    def __exit__(self, *_: object) -> None:
        import _signal

        _signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            _signal.signal(number, handler)
        posix.close(self._read)
        posix.close(self._write)

    def fileno(self) -> int:
        """For the poll loop."""
        return self._read

    def take(self) -> bytes:
        """The numbers of the signals that came."""
        return posix.read(self._read, 64)
