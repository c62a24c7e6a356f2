"""One command from its start to its end.

It is started at once, while its client still opens its websockets: what it writes meanwhile waits in its pipes. A client that
does not come, or goes, takes its command with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atoll.domain.errors import BadRequest, NotFound
from atoll.drivers.instance.contract import ExecProcess, ExecSpec
from atoll.host import streams, threads
from atoll.services.instances.core import InstanceCore, Loaded
from atoll.services.instances.exec_attended import Attended
from atoll.services.instances.sockets import CONTROL, Sockets
from atoll.services.operations import Operation

_NOT_RUN = {126: (BadRequest, "Command not executable"), 127: (NotFound, "Command not found")}
"""What a shell's exit statuses for it mean, as LXD tells them."""


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


class Run:
    """One run of a command; `environment` is all of what it gets."""

    def __init__(self, core: InstanceCore, loaded: Loaded, command: Command, environment: Mapping[str, str]) -> None:
        self._core = core
        self._loaded = loaded
        self._command = command
        self._environment = environment
        self.sockets = Sockets(_socket_names(command))

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
            self.sockets.release()

    async def _spawn(self, stdin: int, stdout: int, stderr: int, *, terminal: bool = False) -> ExecProcess:
        command = self._command
        spec = ExecSpec(
            command=command.command,
            environment=self._environment,
            user=command.user,
            group=command.group,
            cwd=command.cwd or self._environment.get("HOME", "/"),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            terminal=terminal,
        )
        return await self._core.driver.exec(self._loaded.machine, spec)

    async def _interactive(self) -> int:
        command = self._command
        master, slave = await self._core.driver.open_terminal(self._loaded.machine, user=command.user, group=command.group)
        with contextlib.ExitStack() as fds:
            fds.callback(os.close, master)
            try:
                if command.width > 0 and command.height > 0:
                    streams.set_window(master, width=command.width, height=command.height)
                process = await self._spawn(slave, slave, slave, terminal=True)
            finally:
                os.close(slave)
            attended = Attended(process, self.sockets, master)
            try:
                socket = (await self.sockets.connected(["0"]))["0"]
                return await attended.run([attended.output(master, socket)], attended.keys(os.dup(master), socket))
            finally:
                await attended.end()

    async def _piped(self) -> int:
        (in_r, in_w), (out_r, out_w), (err_r, err_w) = streams.pipe(), streams.pipe(), streams.pipe()
        with contextlib.ExitStack() as fds:
            for fd in (out_r, err_r):
                fds.callback(os.close, fd)
            with contextlib.ExitStack() as unless_started:
                unless_started.callback(os.close, in_w)
                try:
                    process = await self._spawn(in_r, out_w, err_w)
                finally:
                    streams.close((in_r, out_w, err_w))
                attended = Attended(process, self.sockets)
                try:
                    sockets = await self.sockets.connected(["0", "1", "2"])
                    unless_started.pop_all()
                    outputs = [attended.output(out_r, sockets["1"]), attended.output(err_r, sockets["2"])]
                    present = attended.presence([sockets["1"], sockets["2"]])
                    return await attended.run(outputs, attended.input(in_w, sockets["0"]), present)
                finally:
                    await attended.end()

    async def _unattended(self, operation: Operation) -> Mapping[str, Any]:
        folder = self._core.paths.logs(self._loaded.machine.key)
        opened = await threads.obtained(streams.close, _open_outputs, folder, operation.id, record=self._command.record)
        stdin, stdout, stderr = opened
        try:
            process = await self._spawn(stdin, stdout, stderr)
        finally:
            streams.close(opened)
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            process.signal(signal.SIGKILL)
            raise
        if not self._command.record:
            return {"return": code}
        base = f"{self._loaded.url}/logs/exec_{operation.id}"
        return {"return": code, "output": {"1": f"{base}.stdout", "2": f"{base}.stderr"}}


def _socket_names(command: Command) -> tuple[str, ...]:
    if not command.websockets:
        return ()
    return ("0", CONTROL) if command.interactive else ("0", "1", "2", CONTROL)


def _open_outputs(folder: Path, operation_id: str, *, record: bool) -> tuple[int, int, int]:
    """Standard descriptors of a command that nobody attends: its input is empty, its outputs are kept or thrown away."""
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
