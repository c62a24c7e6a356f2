"""The simulated driver passes the suite that real drivers pass."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.drivers.instance.conformance import Conformance
from atoll.drivers.instance.contract import Launch, MachineEvent, MachineId
from atoll.drivers.instance.sim import STUBBORN, SimDriver
from atoll.host import pidfd
from atoll.host.peer import Peer


class SimRig:
    """A simulated host below a temporary directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = self.scratch = folder
        self.events: list[MachineEvent] = []
        self.driver = SimDriver(folder)

    def launch(self, name: str, *, stubborn: bool = False) -> Launch:
        return Launch(
            id=MachineId("default", name),
            uuid="",
            rootfs=self.folder,
            log_dir=self.folder,
            run_dir=self.folder,
            hostname=name,
            architecture="x86_64",
            idmap=None,
            raw=STUBBORN if stubborn else "",
        )

    async def reopen(self) -> None:
        self.driver = SimDriver(self.folder)
        self.events.clear()
        await self.driver.open(self.events.append)

    async def kill_outside(self, machine: MachineId) -> None:
        await self.driver.adopt([machine], {})
        self.driver.end(machine)

    def hold(self, pid: int) -> Peer:
        return Peer(pid, os.getuid(), pidfd.open(os.getpid()))

    def residue(self) -> object:
        return len(os.listdir("/proc/self/fd"))

    def limits(self, machine: MachineId) -> tuple[int | None, int | None]:
        limits = self.driver.limits(machine)
        return limits.memory_bytes, limits.processes


class TestSim(Conformance):
    """All of it."""

    @pytest.fixture
    async def rig(self, tmp_path: Path) -> AsyncIterator[SimRig]:
        rig = SimRig(tmp_path)
        await rig.driver.open(rig.events.append)
        yield rig
        await rig.driver.close()

    async def test_ten_thousand_machines(self, rig: SimRig) -> None:
        """Start, look at, and stop ten thousand."""
        machines = []
        for number in range(10_000):
            launch = rig.launch(f"m{number}")
            await rig.driver.start(launch)
            machines.append(launch.id)
        states = await rig.driver.state(machines)
        assert len(states) == 10_000
        for machine in machines:
            await rig.driver.stop(machine, timeout=None)
        assert len(rig.events) == 20_000
