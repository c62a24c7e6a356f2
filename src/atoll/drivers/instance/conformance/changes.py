"""Looks at machines, and changes to running ones: limits, interfaces, mounts, files."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.domain.errors import Conflict, NotFound
from atoll.domain.status import InstanceStatus
from atoll.drivers.instance.conformance.rig import Rig, calm, run, settled, started, told
from atoll.drivers.instance.contract import Limits, MachineEventKind, MachineId, MountSpec, NicSpec, Plugged
from atoll.host.threads import in_thread

MEBIBYTE = 1 << 20


def _make_tree(folder: Path) -> Path:
    (folder / "tree").mkdir(exist_ok=True)
    (folder / "tree/only-there").touch()
    return folder / "tree"


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _make_marked(folder: Path) -> None:
    folder.mkdir()
    (folder / "mark").write_text(folder.name)


class Changes:
    """Part of the suite: one method per promise of the contract."""

    async def test_state(self, rig: Rig) -> None:
        """Figures of a running machine, and of one that does not run."""
        machine = await started(rig)
        nobody = MachineId("default", "nobody")
        state = await rig.driver.state([machine, nobody])
        assert state[nobody].status is InstanceStatus.STOPPED
        figures = state[machine]
        assert figures.status is InstanceStatus.RUNNING
        assert figures.pid == await rig.driver.init_pid(machine)
        assert figures.processes > 0
        assert figures.memory > 0
        assert figures.cpu_ns > 0
        loopback = {nic.name: nic for nic in figures.nics}["lo"]
        assert loopback.kind == "loopback"
        assert "bytes_received" in loopback.counters

    async def test_state_of_many(self, rig: Rig) -> None:
        """Fifty machines in one pass."""
        names = [f"c{number}" for number in range(50)]
        machines = [await started(rig, name) for name in names]
        await rig.driver.state(machines)
        before = time.perf_counter()
        states = await rig.driver.state(machines)
        took = time.perf_counter() - before
        assert all(state.processes for state in states.values())
        assert took < 0.5, f"{took * 1000:.0f} ms"

    async def test_nothing_listens(self, rig: Rig) -> None:
        """In a machine that has just begun; and of one that does not run nothing is said."""
        machine = await started(rig)
        assert await rig.driver.listening([machine, MachineId("default", "nobody")]) == {machine: frozenset()}

    async def test_limits(self, rig: Rig) -> None:
        """Set at the start, changed live, and lifted."""
        machine = await started(rig, limits=Limits(memory_bytes=128 * MEBIBYTE, processes=200))
        assert rig.limits(machine) == (128 * MEBIBYTE, 200)
        await rig.driver.set_limits(machine, Limits(memory_bytes=256 * MEBIBYTE))
        assert rig.limits(machine) == (256 * MEBIBYTE, None)
        await rig.driver.set_limits(machine, Limits(memory_bytes=64 * MEBIBYTE, processes=50))
        assert rig.limits(machine) == (64 * MEBIBYTE, 50)
        await rig.driver.set_limits(machine, Limits())
        assert rig.limits(machine) == (None, None)

    async def test_pins(self, rig: Rig) -> None:
        """CPUs of many at once; what does not run is passed over, and other limits stay."""
        machine = await started(rig, limits=Limits(processes=200))
        await rig.driver.pin({machine: "0", MachineId("default", "absent"): "0"})
        await rig.driver.pin({machine: ""})
        assert rig.limits(machine)[1] == 200

    async def test_raw_text(self, rig: Rig) -> None:
        """Nothing is a text that can be."""
        rig.driver.check_raw("")

    async def test_interfaces(self, rig: Rig) -> None:
        """One from the start, one plugged in and out while running."""
        first = NicSpec("eth0", "atcf0", "eth0", "00:16:3e:00:00:01")
        second = NicSpec("eth1", "atcf1", "eth1", "00:16:3e:00:00:02", mtu=1400)
        machine = await started(rig, nics=[first])
        root = 0
        await rig.driver.attach_nic(machine, second, userns_root=root)
        nics = {nic.name: nic for nic in (await rig.driver.state([machine]))[machine].nics}
        assert nics["eth0"].hwaddr == first.hwaddr
        assert nics["eth0"].host_name == "atcf0"
        assert (nics["eth1"].hwaddr, nics["eth1"].host_name, nics["eth1"].mtu) == (second.hwaddr, "atcf1", 1400)
        assert nics["eth1"].up
        await rig.driver.detach_nic(machine, second)
        await rig.driver.detach_nic(machine, second)
        assert "eth1" not in {nic.name for nic in (await rig.driver.state([machine]))[machine].nics}
        run_dirs = {machine: rig.launch(machine.name).run_dir}
        assert await rig.driver.surplus({machine: Plugged([first])}, run_dirs) == {}
        [back] = (await rig.driver.surplus({machine: Plugged()}, run_dirs))[machine]
        assert back.host_name == "atcf0"

    async def test_files(self, rig: Rig) -> None:
        """As the machine sees them while it runs, in a tree when it does not."""
        machine = await started(rig)
        await self._work_on_files(rig, machine)
        before = await calm(rig)
        await self._work_on_files(rig, machine)
        await settled(rig, before)
        async with await rig.driver.open_files(machine, None):
            await rig.driver.stop(machine, timeout=None)
            await told(rig, machine, MachineEventKind.STOPPED)
        with pytest.raises(Conflict):
            await rig.driver.open_files(machine, None)

    @staticmethod
    async def _work_on_files(rig: Rig, machine: MachineId) -> None:
        async with await rig.driver.open_files(machine, None) as session:
            _, (stream,) = await session.ask("store", path="/f", append=False, mode=0o640, uid=5, gid=6)
            await session.feed(stream, _once(b"content"))
            found, _ = await session.ask("look", path="/f")
            assert (found["uid"], found["gid"], found["mode"], found["size"]) == (5, 6, 0o640, 7)
            async with await rig.driver.open_files(machine, await in_thread(_make_tree, rig.scratch)) as other:
                assert (await other.ask("look", path="/only-there"))[0]["kind"] == "file"
                with pytest.raises(NotFound):
                    await other.ask("look", path="/f")

    async def test_mounts(self, rig: Rig) -> None:
        """One from the start, one mounted and unmounted while running, in a folder that does not exist before."""
        for name in ("a", "b"):
            _make_marked(rig.scratch / name)
        first = MountSpec("first", str(rig.scratch / "a"), "mnt/first")
        second = MountSpec("second", str(rig.scratch / "b"), "/srv/deep/second", options=("bind", "ro"))
        machine = await started(rig, mounts=[first])
        assert (await run(rig, machine, "cat", "/mnt/first/mark"))[1] == b"a"
        await rig.driver.attach_mount(machine, second)
        assert (await run(rig, machine, "cat", "/srv/deep/second/mark"))[1] == b"b"
        nic = NicSpec("eth9", "atcf9", "eth9", "00:16:3e:00:00:09")
        assert await rig.driver.lacking({machine: Plugged([nic], [first])}) == {machine: {"eth9"}}
        assert await rig.driver.lacking({machine: Plugged()}) == {}
        await rig.driver.detach_mount(machine, second)
        await rig.driver.detach_mount(machine, second)
        assert await rig.driver.lacking({machine: Plugged([], [first, second])}) == {machine: {"second"}}
        assert (await run(rig, machine, "cat", "/srv/deep/second/mark"))[0] != 0
