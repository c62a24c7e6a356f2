"""Running commands in instances: over websockets, interactive or not; recorded to files; or just run.

The command is started at once, while the client still opens its websockets: what it writes meanwhile waits in its pipes. A client
that does not come, or goes, takes its command with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from atoll.domain.caller import Caller
from atoll.domain.errors import BadRequest, NotFound
from atoll.drivers.instance.contract import ExecProcess, ExecSpec
from atoll.host import streams
from atoll.host.threads import in_thread
from atoll.services.instances.core import InstanceCore, Loaded, instance_resources
from atoll.services.operations import Operation, OperationClass, OperationRegistry, OperationSpec, new_secret

log = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
CONTROL = "control"

_NOT_RUN = {126: (BadRequest, "Command not executable"), 127: (NotFound, "Command not found")}
"""What a shell's exit statuses for it mean, as LXD tells them."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Socket(Protocol):
    """A websocket, seen from here."""

    async def send(self, data: bytes) -> None:
        """Binary data; waits while the peer does not read. ConnectionError when it is gone."""

    async def send_end(self) -> None:
        """No more data comes: LXD's barrier, an empty text message."""

    async def receive(self) -> bytes | None:
        """Data of the peer; None at its barrier or when it is gone."""

    async def close(self) -> None:
        """Close the connection."""


@dataclass(frozen=True, slots=True)
class Command:
    """What a client wants to run."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    user: int = 0
    group: int = 0
    cwd: str = ""
    interactive: bool = False
    width: int = 0
    height: int = 0
    websockets: bool = False
    record: bool = False


class ExecService:
    """Use cases of exec."""

    def __init__(self, core: InstanceCore, operations: OperationRegistry) -> None:
        self._core = core
        self._operations = operations

    async def start(self, project: str, name: str, command: Command, *, caller: Caller) -> Operation:
        """The operation that runs it. BadRequest if the instance does not run or the command is malformed."""
        loaded = await self._core.load(project, name)
        self._core.require_running(loaded)
        _check(command)
        run = _Run(self._core, loaded, command)
        operation = self._operations.start(
            OperationSpec(
                "Executing command",
                run.work,
                cls=OperationClass.WEBSOCKET if command.websockets else OperationClass.TASK,
                project=project,
                resources=instance_resources(name),
                metadata={
                    "command": list(command.command),
                    "environment": dict(run.environment),
                    "interactive": command.interactive,
                },
                caller=caller,
                cancellable=True,
                sockets=run.secrets,
                connect=run.connect,
            )
        )
        self._core.tell("instance-exec", loaded.record, caller=caller, context={"command": " ".join(command.command)})
        return operation


def _check(command: Command) -> None:
    if not command.command or not command.command[0]:
        raise BadRequest("command: it may not be empty")
    texts = [*command.command, command.cwd, *command.environment, *command.environment.values()]
    if any("\0" in text for text in texts):
        raise BadRequest("command: NUL characters are not allowed")
    if any("=" in key or not key for key in command.environment):
        raise BadRequest("environment: invalid variable name")
    if not (0 <= command.user < 2**32 - 1 and 0 <= command.group < 2**32 - 1):
        raise BadRequest("user, group: out of range")
    if command.record and (command.websockets or command.interactive):
        raise BadRequest("record-output: only without websockets and not interactive")


class _Run:
    """One command from start to end."""

    def __init__(self, core: InstanceCore, loaded: Loaded, command: Command) -> None:
        self._core = core
        self._loaded = loaded
        self._command = command
        self.environment = _environment(loaded.expanded.config, command)
        self.secrets = {name: new_secret() for name in self._socket_names()}
        self._arrived: dict[str, asyncio.Future[Socket]] = {}
        self._ended = asyncio.Event()
        self._over = asyncio.Event()

    def _socket_names(self) -> tuple[str, ...]:
        if not self._command.websockets:
            return ()
        return ("0", CONTROL) if self._command.interactive else ("0", "1", "2", CONTROL)

    async def connect(self, name: str, socket: Any) -> None:
        """A websocket came in; its connection is held until the command is over. BadRequest for a second one."""
        future = self._arrival(name)
        if future.done():
            raise BadRequest("This descriptor is connected already")
        future.set_result(socket)
        await self._over.wait()
        await socket.close()  # here, not in the command's own course: a peer may take its time to answer

    def _arrival(self, name: str) -> asyncio.Future[Socket]:
        if name not in self._arrived:
            self._arrived[name] = asyncio.get_running_loop().create_future()
        return self._arrived[name]

    async def work(self, operation: Operation) -> Mapping[str, Any]:
        """The operation's work: its metadata gets the command's exit status. A command that could not be run fails it too."""
        try:
            if not self._command.websockets:
                result = await self._unattended(operation)
            elif self._command.interactive:
                result = {"return": await self._interactive()}
            else:
                result = {"return": await self._piped()}
            if refused := _NOT_RUN.get(result["return"]):
                operation.update(result)
                kind, message = refused
                raise kind(message)
            return result
        finally:
            self._over.set()

    async def _spawn(self, stdin: int, stdout: int, stderr: int, *, terminal: bool = False) -> ExecProcess:
        command = self._command
        spec = ExecSpec(
            command=command.command,
            environment=self.environment,
            user=command.user,
            group=command.group,
            cwd=command.cwd or self.environment.get("HOME", "/"),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            terminal=terminal,
        )
        return await self._core.driver.exec(self._loaded.machine, spec)

    # --- with websockets -----------------------------------------------------------------------------------------------

    async def _interactive(self) -> int:
        command = self._command
        master, slave = await self._core.driver.open_terminal(self._loaded.machine, user=command.user, group=command.group)
        with contextlib.ExitStack() as fds:
            fds.callback(os.close, master)
            try:
                if command.width and command.height:
                    streams.set_window(master, width=command.width, height=command.height)
                process = await self._spawn(slave, slave, slave, terminal=True)
            finally:
                os.close(slave)
            return await self._attend(
                process,
                ("0",),
                lambda sockets: [self._output(master, sockets["0"]), self._input(sockets["0"], os.dup(master), hang_up=process)],
                terminal=master,
            )

    async def _piped(self) -> int:
        (in_r, in_w), (out_r, out_w), (err_r, err_w) = streams.pipe(), streams.pipe(), streams.pipe()
        with contextlib.ExitStack() as fds:
            for fd in (out_r, err_r):
                fds.callback(os.close, fd)
            try:
                process = await self._spawn(in_r, out_w, err_w)
            except BaseException:
                os.close(in_w)
                raise
            finally:
                for fd in (in_r, out_w, err_w):
                    os.close(fd)
            return await self._attend(
                process,
                ("0", "1", "2"),
                lambda sockets: [
                    self._output(out_r, sockets["1"]),
                    self._output(err_r, sockets["2"]),
                    self._input(sockets["0"], in_w),
                ],
                unstarted=in_w,
            )

    async def _attend(
        self,
        process: ExecProcess,
        required: Sequence[str],
        pumps: Any,
        *,
        terminal: int | None = None,
        unstarted: int | None = None,
    ) -> int:
        """Wait for the websockets, move data until the command is over; outputs to their end, the input until then."""
        exited = asyncio.ensure_future(process.wait())
        exited.add_done_callback(lambda _: self._ended.set())
        tasks: list[asyncio.Task[None]] = []
        try:
            try:
                sockets = await self._sockets(required)
            except BaseException as error:
                if unstarted is not None:
                    os.close(unstarted)
                if isinstance(error, TimeoutError):
                    raise BadRequest("The client did not connect its websockets in time") from error
                raise
            *outputs, input_ = [asyncio.ensure_future(pump) for pump in pumps(sockets)]
            control = asyncio.ensure_future(self._control(process, terminal))
            tasks = [*outputs, input_, control]
            code = await asyncio.shield(exited)  # else a cancellation would end the waiting, and leave the command running
            await asyncio.gather(*outputs, return_exceptions=True)
            return code
        finally:
            await self._finish(process, exited, tasks)

    async def _finish(self, process: ExecProcess, exited: asyncio.Future[int], tasks: Sequence[asyncio.Task[None]]) -> None:
        if not exited.done():
            process.signal(signal.SIGKILL)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await asyncio.wait([exited])

    async def _sockets(self, required: Sequence[str]) -> dict[str, Socket]:
        async with asyncio.timeout(CONNECT_SECONDS):
            return {name: await asyncio.shield(self._arrival(name)) for name in required}

    async def _output(self, fd: int, socket: Socket) -> None:
        """From the command to the client; if the client is gone the rest is thrown away."""
        try:
            async for data in streams.chunks(fd, self._ended):
                await socket.send(data)
            await socket.send_end()
        except ConnectionError:
            async for _ in streams.chunks(fd, self._ended):
                pass

    async def _input(self, socket: Socket, fd: int, *, hang_up: ExecProcess | None = None) -> None:
        """From the client to the command; its end closes the command's input. A terminal whose client left hangs up."""
        try:
            while (data := await socket.receive()) is not None:
                await streams.write_all(fd, data)
            if hang_up is not None and not self._ended.is_set():
                hang_up.signal(signal.SIGHUP)
        except (BrokenPipeError, OSError):
            while await socket.receive() is not None:
                pass
        finally:
            os.close(fd)

    async def _control(self, process: ExecProcess, terminal: int | None) -> None:
        """Window sizes and signals; when the client is gone, so is its command."""
        # Shielded: a client whose command is over before its control socket came still connects that, and is not refused.
        socket = await asyncio.shield(self._arrival(CONTROL))
        while (message := await socket.receive()) is not None:
            try:
                _obey(json.loads(message), process, terminal)
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, OSError) as error:
                log.debug("Control message not understood: %s", error)
        if not self._ended.is_set():
            process.signal(signal.SIGKILL)

    # --- without websockets --------------------------------------------------------------------------------------------

    async def _unattended(self, operation: Operation) -> Mapping[str, Any]:
        folder = self._core.paths.logs(self._loaded.machine.key)
        stdin, stdout, stderr = await in_thread(_open_outputs, folder, operation.id, record=self._command.record)
        try:
            process = await self._spawn(stdin, stdout, stderr)
        finally:
            for fd in {stdin, stdout, stderr}:
                os.close(fd)
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            process.signal(signal.SIGKILL)
            raise
        if not self._command.record:
            return {"return": code}
        base = f"{self._loaded.url}/logs/exec_{operation.id}"
        return {"return": code, "output": {"1": f"{base}.stdout", "2": f"{base}.stderr"}}


def _open_outputs(folder: Path, operation_id: str, *, record: bool) -> tuple[int, int, int]:
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    if not record:
        return null, null, null
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, null)
        stdout = os.open(folder / f"exec_{operation_id}.stdout", flags, 0o600)
        undo.callback(os.close, stdout)
        stderr = os.open(folder / f"exec_{operation_id}.stderr", flags, 0o600)
        undo.pop_all()
    return null, stdout, stderr


def _environment(config: Mapping[str, str], command: Command) -> dict[str, str]:
    """The instance's own variables, LXD's defaults where nobody says otherwise, the client's on top."""
    environment = {k.removeprefix("environment."): v for k, v in config.items() if k.startswith("environment.")}
    environment.setdefault("PATH", _PATH)
    environment.setdefault("LANG", "C.UTF-8")
    if command.user == 0:
        environment.setdefault("HOME", "/root")
        environment.setdefault("USER", "root")
    return {**environment, **command.environment}


def _obey(message: Mapping[str, Any], process: ExecProcess, terminal: int | None) -> None:
    match message.get("command"):
        case "window-resize" if terminal is not None:
            size = message["args"]
            streams.set_window(terminal, width=int(size["width"]), height=int(size["height"]))
        case "signal":
            number = int(message["signal"])
            if number not in signal.valid_signals():
                raise ValueError(f"there is no signal {number}")
            process.signal(number)
        case other:
            log.debug("Unknown control command %r", other)
