"""What the suite needs around a driver, and what its parts do again and again."""

from __future__ import annotations

import asyncio
import os
import select
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from atoll.drivers.instance.contract import ExecSpec, InstanceDriver, Launch, MachineEvent, MachineEventKind, MachineId
from atoll.host.peer import Peer
from atoll.host.threads import in_thread

SECONDS = 20.0
CALM_LOOKS = 6


class Rig(Protocol):
    """What the suite needs around a driver. `driver` is open, and told of events into `events`."""

    driver: InstanceDriver
    events: list[MachineEvent]
    scratch: Path
    """A folder of the test's own that a machine's users can reach."""

    def launch(self, name: str, *, stubborn: bool = False) -> Launch:
        """A launch that works; a stubborn machine does not shut down when asked to."""

    async def reopen(self) -> None:
        """Drop the driver as a killed daemon would, and open another in its place over the same state."""

    async def kill_outside(self, machine: MachineId) -> None:
        """End a machine behind the driver's back; returns when it has ended."""

    def residue(self) -> object:
        """A picture of what could leak (descriptors, processes, control groups), to compare two moments."""

    def hold(self, pid: int) -> Peer:
        """A process, by the number that `ExecProcess.pid` gave; the caller closes it."""

    def limits(self, machine: MachineId) -> tuple[int | None, int | None]:
        """The (memory, processes) limits that are in force on a running machine."""


class Output:
    """Three pipes for a command: writes its input, gathers what it says."""

    def __init__(self) -> None:
        self._in, self._out, self._err = os.pipe(), os.pipe(), os.pipe()

    def fds(self) -> tuple[int, int, int]:
        """What the command gets."""
        return self._in[0], self._out[1], self._err[1]

    def started(self) -> None:
        """Close the command's ends."""
        for fd in self.fds():
            os.close(fd)

    async def gather(self, given: bytes = b"") -> tuple[bytes, bytes]:
        """Write its input, then read both outputs to their end."""
        feeding = asyncio.ensure_future(in_thread(_write_all, self._in[1], given))
        out, err = await asyncio.gather(in_thread(_read_all, self._out[0]), in_thread(_read_all, self._err[0]))
        await feeding
        return out, err


def _write_all(fd: int, data: bytes) -> None:
    with suppress(BrokenPipeError), open(fd, "wb") as file:
        file.write(data)


def _read_all(fd: int) -> bytes:
    with open(fd, "rb") as file:
        return file.read()


def read_until(fd: int, text: bytes) -> bytes:
    """What a descriptor says up to a text, within some time."""
    found = b""
    while text not in found:
        if not select.select([fd], [], [], SECONDS)[0]:
            raise AssertionError(f"{text!r} does not come; there was {found!r}")
        found += os.read(fd, 1 << 16)
    return found


_null: list[int] = []


def nothing() -> tuple[int, int, int]:
    """Standard descriptors on which nothing happens. Opened once: the suite counts descriptors."""
    if not _null:
        _null.append(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
    return _null[0], _null[0], _null[0]


def spec(command: Sequence[str], fds: tuple[int, int, int], **changes: Any) -> ExecSpec:
    """A command as root in /, with the environment that a service would give it."""
    plain = ExecSpec(command, {"PATH": "/bin:/sbin:/usr/bin:/usr/sbin"}, 0, 0, "/", *fds)
    return replace(plain, **changes)


async def run(rig: Rig, machine: MachineId, *command: str, given: bytes = b"", **changes: Any) -> tuple[int, bytes, bytes]:
    """Run a command to its end: (exit status, what it wrote, what it complained)."""
    pipes = Output()
    try:
        process = await rig.driver.exec(machine, spec(command, pipes.fds(), **changes))
    finally:
        pipes.started()
    out, err = await pipes.gather(given)
    return await asyncio.wait_for(process.wait(), SECONDS), out, err


async def started(rig: Rig, name: str = "c1", **changes: Any) -> MachineId:
    """A machine that runs."""
    launch = replace(rig.launch(name), **changes)
    await rig.driver.start(launch)
    return launch.id


async def told(rig: Rig, machine: MachineId, kind: MachineEventKind) -> None:
    """Wait until that was told of a machine."""
    deadline = time.monotonic() + SECONDS
    while MachineEvent(machine, kind) not in rig.events:
        assert time.monotonic() < deadline, f"{kind} was not told; events: {rig.events}"
        await asyncio.sleep(0.01)


async def calm(rig: Rig) -> object:
    """What there is once nothing is on its way out any more: the same picture for a while."""
    picture, same = rig.residue(), 0
    while same < CALM_LOOKS:
        await asyncio.sleep(0.05)
        now = rig.residue()
        picture, same = now, same + 1 if now == picture else 0
    return picture


async def settled(rig: Rig, before: object) -> None:
    """Wait until nothing is left over. What ended is let go of a moment later."""
    deadline = time.monotonic() + SECONDS
    while rig.residue() != before and time.monotonic() < deadline:  # noqa: ASYNC110 - nothing tells of the last descriptor
        await asyncio.sleep(0.05)
    after = rig.residue()
    assert after == before, f"{before} became {after}"
