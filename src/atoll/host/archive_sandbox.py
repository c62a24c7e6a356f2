"""Starts a program on untrusted data in a jail (security invariant I12); `archive_jail` is what runs there."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Self

from atoll.domain.errors import AtollError, BadRequest, HostError
from atoll.host import archive_jail, process

CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_SETFCAP = 0, 1, 3, 4, 31
OWNING = (CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_SETFCAP)
"""What it takes to read or write files of any owner, with their modes and capabilities."""

_SAID_BYTES = 64 << 10
_NO_LIMIT = 1 << 62


@dataclass(frozen=True, slots=True)
class Bind:
    """A file or folder of the host that the program sees as `/name`."""

    path: Path
    name: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Jail:
    """What a program gets. `memory_bytes` limits its address space, `file_bytes` the size of a file it writes. With `users` and
    `groups` (first id inside, first id outside, count) it runs in a user namespace, as its root. `shell`: it is a shell, which
    wants a /dev/null to read."""

    binds: Sequence[Bind] = ()
    cwd: str = "/"
    capabilities: Sequence[int] = ()
    memory_bytes: int = 4 << 30
    file_bytes: int = _NO_LIMIT
    env: Mapping[str, str] = field(default_factory=dict)
    users: Sequence[tuple[int, int, int]] = ()
    groups: Sequence[tuple[int, int, int]] = ()
    shell: bool = False

    def spec(self) -> str:
        """The JSON that `archive_jail` reads."""
        return json.dumps(
            {
                "binds": [(str(bind.path), bind.name, bind.writable) for bind in self.binds],
                "cwd": self.cwd,
                "capabilities": list(self.capabilities),
                "users": list(self.users),
                "groups": list(self.groups),
                "shell": self.shell,
                "limits": {"RLIMIT_AS": self.memory_bytes, "RLIMIT_FSIZE": self.file_bytes, "RLIMIT_CORE": 0},
            }
        )


class Program:
    """A program running in a jail; as a context manager it is gone, with all it started, when the block is left."""

    def __init__(self, name: str, child: asyncio.subprocess.Process) -> None:
        self.name = name
        self._child = child
        self._said = asyncio.create_task(self._collect())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill()
        await asyncio.shield(self._child.wait())
        await asyncio.shield(self._said)

    def kill(self) -> None:
        """End it at once; nothing wrong if it has ended."""
        if self._child.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)

    async def finish(self) -> tuple[int, str]:
        """Its exit code and the end of what it said on stderr, once it has ended."""
        code = await self._child.wait()
        return code, await asyncio.shield(self._said)

    async def _collect(self) -> str:
        """Read stderr to its end, so that the program never waits for us; keep the last part."""
        kept = b""
        assert self._child.stderr is not None  # start() always makes a pipe of it
        while chunk := await self._child.stderr.read(_SAID_BYTES):
            kept = (kept + chunk)[-_SAID_BYTES:]
        return kept.decode(errors="replace").strip()


async def start(
    argv: Sequence[str], jail: Jail, *, stdin: int | BinaryIO | None = None, stdout: int | BinaryIO | None = None
) -> Program:
    """Start a program of the host in that jail. Streams that are not given are /dev/null; stderr is collected."""
    child = await process.start(
        [sys.executable, "-I", "-S", archive_jail.__file__, jail.spec(), process.find(argv[0]), *argv[1:]],
        stdin=_descriptor(stdin),
        stdout=_descriptor(stdout),
        env=jail.env,
    )
    return Program(argv[0], child)


_HOST_TROUBLE = ("No space left on device", "Disk quota exceeded", "Input/output error", "Cannot allocate memory")


def raise_failure(code: int, said: str) -> None:
    """After a program that unpacks: HostError if it failed for want of room or memory, BadRequest if the archive is to blame."""
    if code == 0:
        return
    kind: type[AtollError] = HostError if any(words in said for words in _HOST_TROUBLE) else BadRequest
    raise kind(f"The archive cannot be unpacked: {said[-500:] or f'exit code {code}'}")


def _descriptor(stream: int | BinaryIO | None) -> int:
    if stream is None:
        return asyncio.subprocess.DEVNULL
    return stream if isinstance(stream, int) else stream.fileno()
