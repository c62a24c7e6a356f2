"""The commands that simulated machines have: enough of each for the conformance suite and for tests of the exec route."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress

from atoll.drivers.instance.contract import ExecSpec, MountSpec
from atoll.host.threads import in_thread

_DIRECTORIES = ("/", "/etc", "/root", "/tmp", "/home")
_ECHO_AND_EXIT = re.compile(r"(?:echo (?P<text>[^;>]*?))?\s*(?P<error>>&2)?;?\s*(?:exit (?P<code>\d+))?")
_CHUNK = 1 << 16


class Command:
    """A simulated command. It holds copies of its descriptors, so the caller may close its own."""

    def __init__(
        self,
        pid: int,
        spec: ExecSpec,
        mounts: Mapping[str, MountSpec],
        actions: Mapping[str, Callable[[], None]],
    ) -> None:
        self._pid = pid
        self._spec = spec
        self._mounts = mounts
        self._actions = actions
        self._fds = [os.dup(fd) for fd in (spec.stdin, spec.stdout, spec.stderr)]
        self._status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """A number of no process."""
        return self._pid

    async def wait(self) -> int:
        """Its exit status."""
        return await asyncio.shield(self._status)

    def signal(self, number: int) -> None:
        """Every signal ends it."""
        self.end(128 + number)

    def start(self, ended: Callable[[], None]) -> None:
        """Run it; `ended` is called when it has."""
        self._status.add_done_callback(lambda _: ended())
        self._task = asyncio.ensure_future(self._run())

    def end(self, status: int) -> None:
        """It ends with that status, unless it has already."""
        if not self._status.done():
            self._status.set_result(status)
            if self._task is not None and self._task is not asyncio.current_task():
                self._task.cancel()

    async def _run(self) -> None:
        try:
            self.end(await self._perform())
        finally:
            self.end(1)
            for fd in self._fds:
                os.close(fd)

    async def _perform(self) -> int:
        name, *arguments = self._spec.command
        method = getattr(self, f"_do_{name}", None)
        if name in self._actions:
            self._actions[name]()
            return 0
        if method is not None:
            result: int = await method(arguments)
            return result
        return 126 if name == "/etc/passwd" else 127

    async def _do_true(self, arguments: list[str]) -> int:
        return 0

    async def _do_false(self, arguments: list[str]) -> int:
        return 1

    async def _do_test(self, arguments: list[str]) -> int:
        return 0 if arguments == ["-t", "0"] and os.isatty(self._fds[0]) else 1

    async def _do_sleep(self, arguments: list[str]) -> int:
        await asyncio.sleep(float(arguments[0]))
        return 0

    async def _do_echo(self, arguments: list[str]) -> int:
        return await self._say(" ".join(arguments) + "\n")

    async def _do_env(self, arguments: list[str]) -> int:
        return await self._say("".join(f"{key}={value}\n" for key, value in self._spec.environment.items()))

    async def _do_pwd(self, arguments: list[str]) -> int:
        return await self._say((self._spec.cwd if self._spec.cwd in _DIRECTORIES else "/") + "\n")

    async def _do_id(self, arguments: list[str]) -> int:
        return await self._say(f"{self._spec.group if arguments == ['-g'] else self._spec.user}\n")

    async def _do_head(self, arguments: list[str]) -> int:
        await in_thread(self._write, self._fds[1], b"\0" * int(arguments[1]))
        return 0

    async def _do_cat(self, arguments: list[str]) -> int:
        if arguments:
            return await self._show(arguments[0])
        await in_thread(self._copy)
        return 0

    async def _do_sh(self, arguments: list[str]) -> int:
        match = _ECHO_AND_EXIT.fullmatch(arguments[1]) if len(arguments) == 2 and arguments[0] == "-c" else None
        if match is None:
            return 2
        if match["text"] is not None:
            await self._say(match["text"].strip() + "\n", error=bool(match["error"]))
        return int(match["code"] or 0)

    async def _show(self, path: str) -> int:
        """A file in one of the machine's mounts."""
        for target, mount in self._mounts.items():
            if path.startswith(f"/{target}/"):
                return await self._say(await in_thread(_read, f"{mount.source}/{path[len(target) + 2 :]}"))
        return 1

    async def _say(self, text: str, *, error: bool = False) -> int:
        await in_thread(self._write, self._fds[2 if error else 1], text.encode())
        return 0

    @staticmethod
    def _write(fd: int, data: bytes) -> None:
        view = memoryview(data)
        with suppress(BrokenPipeError):
            while view:
                view = view[os.write(fd, view[:_CHUNK]) :]

    def _copy(self) -> None:
        while data := os.read(self._fds[0], _CHUNK):
            self._write(self._fds[1], data)


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()
