"""Starting, stopping and freezing; what ends by itself; a daemon that is killed; what cannot be started."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from atoll.domain.errors import AtollError, BadRequest, Conflict, DeadlineExceeded
from atoll.domain.status import InstanceStatus
from atoll.drivers.instance.conformance.rig import SECONDS, Rig, calm, run, settled, spec, started, told
from atoll.drivers.instance.contract import Limits, MachineEvent, MachineEventKind, MachineId, MountSpec, NicSpec


class Life:
    """Part of the suite: one method per promise of the contract."""

    async def test_starts_and_is_killed(self, rig: Rig) -> None:
        """STARTED and STOPPED are told in order, and the status follows."""
        machine = await started(rig)
        assert rig.driver.status(machine) is InstanceStatus.RUNNING
        assert await rig.driver.init_pid(machine) > 0
        await rig.driver.stop(machine, timeout=None)
        assert rig.driver.status(machine) is InstanceStatus.STOPPED
        assert [event.kind for event in rig.events] == [MachineEventKind.STARTED, MachineEventKind.STOPPED]

    async def test_is_measured_while_it_runs(self, rig: Rig) -> None:
        """All parts are there of a machine that runs, and nothing of one that does not."""
        machine, other = await started(rig), MachineId("default", "nobody")
        found = await rig.driver.measure([machine, other])
        assert set(found) == {machine}
        measures = found[machine]
        assert measures.processes > 0
        assert {mode for _, mode in measures.cpu_ns} == {"user", "system"}
        async with asyncio.timeout(SECONDS):  # what it has used is told a moment later
            while not sum((await rig.driver.measure([machine]))[machine].cpu_ns.values()):
                await run(rig, machine, "true")
        assert measures.memory.used > 0
        assert "lo" in measures.nics
        await rig.driver.stop(machine, timeout=None)
        assert await rig.driver.measure([machine]) == {}

    async def test_starts_again_after_a_stop(self, rig: Rig) -> None:
        """Nothing of a first run is in the way of the next."""
        for _ in range(3):
            machine = await started(rig)
            await rig.driver.stop(machine, timeout=None)

    async def test_refuses_to_start_what_runs(self, rig: Rig) -> None:
        """A second start is a conflict and harms nothing."""
        machine = await started(rig)
        with pytest.raises(Conflict):
            await rig.driver.start(rig.launch("c1"))
        assert (await run(rig, machine, "true"))[0] == 0

    async def test_refuses_everything_to_what_does_not_run(self, rig: Rig) -> None:
        """Each call that needs a running machine is a conflict without one."""
        machine = MachineId("default", "nobody")
        assert rig.driver.status(machine) is InstanceStatus.STOPPED
        for call in (
            rig.driver.stop(machine, timeout=None),
            rig.driver.freeze(machine),
            rig.driver.thaw(machine),
            rig.driver.init_pid(machine),
            rig.driver.set_limits(machine, Limits()),
            rig.driver.open_terminal(machine, user=0, group=0),
            rig.driver.open_console(machine),
            rig.driver.exec(machine, spec(["true"], (0, 1, 2))),
        ):
            with pytest.raises(Conflict):
                await call

    async def test_stops_by_asking(self, rig: Rig) -> None:
        """Init shuts the machine down when asked."""
        machine = await started(rig)
        await rig.driver.stop(machine, timeout=SECONDS)
        assert rig.driver.status(machine) is InstanceStatus.STOPPED

    async def test_stop_that_takes_too_long(self, rig: Rig) -> None:
        """A machine that does not shut down still runs afterwards, and can be killed."""
        launch = rig.launch("c1", stubborn=True)
        await rig.driver.start(launch)
        with pytest.raises(DeadlineExceeded):
            await rig.driver.stop(launch.id, timeout=0.3)
        assert rig.driver.status(launch.id) is InstanceStatus.RUNNING
        await rig.driver.stop(launch.id, timeout=None)

    async def test_poweroff_from_inside(self, rig: Rig) -> None:
        """STOPPED is told though nobody asked."""
        machine = await started(rig)
        await self._inside(rig, machine, "poweroff", "-f")
        await told(rig, machine, MachineEventKind.STOPPED)
        assert rig.driver.status(machine) is InstanceStatus.STOPPED

    async def test_reboot_from_inside(self, rig: Rig) -> None:
        """REBOOTED is told, STOPPED is not; the machine works, with another init."""
        machine = await started(rig)
        before = await rig.driver.init_pid(machine)
        await self._inside(rig, machine, "reboot", "-f")
        await told(rig, machine, MachineEventKind.REBOOTED)
        assert await rig.driver.init_pid(machine) != before
        assert (await run(rig, machine, "true"))[0] == 0
        assert MachineEvent(machine, MachineEventKind.STOPPED) not in rig.events

    async def test_reboot_that_is_not_wanted(self, rig: Rig) -> None:
        """Without `autostart_reboot` a reboot is a stop."""
        machine = await started(rig, autostart_reboot=False)
        await self._inside(rig, machine, "reboot", "-f")
        await told(rig, machine, MachineEventKind.STOPPED)
        assert MachineEvent(machine, MachineEventKind.REBOOTED) not in rig.events

    async def _inside(self, rig: Rig, machine: MachineId, *command: str) -> None:
        """Run a command that may be killed by what it does."""
        with suppress(AtollError):
            await run(rig, machine, *command)

    async def test_freezes_and_thaws(self, rig: Rig) -> None:
        """A frozen machine keeps its processes; both changes are told; a frozen one can be killed."""
        machine = await started(rig)
        await rig.driver.freeze(machine)
        assert rig.driver.status(machine) is InstanceStatus.FROZEN
        assert (await rig.driver.state([machine]))[machine].status is InstanceStatus.FROZEN
        await rig.driver.thaw(machine)
        assert (await run(rig, machine, "true"))[0] == 0
        await rig.driver.freeze(machine)
        await rig.driver.stop(machine, timeout=None)
        kinds = [event.kind for event in rig.events]
        frozen, thawed = MachineEventKind.FROZEN, MachineEventKind.THAWED
        assert kinds[1:4] == [frozen, thawed, frozen]
        assert kinds[-1] is MachineEventKind.STOPPED

    async def test_adopts_what_runs(self, rig: Rig) -> None:
        """After the daemon was killed, machines run on, undisturbed, and are watched again."""
        machine = await started(rig)
        frozen = await started(rig, "c2")
        await rig.driver.freeze(frozen)
        before = await rig.driver.init_pid(machine)
        await rig.reopen()
        candidates = [machine, frozen, MachineId("default", "never")]
        adopted = await rig.driver.adopt(candidates, {id: rig.launch(id.name).run_dir for id in candidates})
        assert adopted == {machine, frozen}
        assert rig.driver.status(frozen) is InstanceStatus.FROZEN
        assert await rig.driver.init_pid(machine) == before
        assert (await run(rig, machine, "true"))[0] == 0
        await rig.driver.stop(machine, timeout=None)
        assert MachineEvent(machine, MachineEventKind.STOPPED) in rig.events

    async def test_does_not_adopt_what_ended_meanwhile(self, rig: Rig) -> None:
        """A machine that ended while no daemon ran is not taken for a running one, and can be started."""
        machine = await started(rig)
        await rig.reopen()
        await rig.kill_outside(machine)
        assert await rig.driver.adopt([machine], {machine: rig.launch("c1").run_dir}) == set()
        await started(rig)

    async def test_notices_a_kill_from_outside(self, rig: Rig) -> None:
        """STOPPED is told, and nothing is in the way of the next start."""
        machine = await started(rig)
        await rig.kill_outside(machine)
        await told(rig, machine, MachineEventKind.STOPPED)
        await started(rig)

    @pytest.mark.parametrize("bad", ["a\nlxc.hook.pre-start = /bin/evil", "a\rb", "a\0b"])
    async def test_refuses_lines_in_values(self, rig: Rig, bad: str) -> None:
        """No value becomes a line of a generated file."""
        launch = rig.launch("c1")
        nic = NicSpec("eth0", "atcf0", "eth0", "00:16:3e:00:00:01")
        mount = MountSpec("m", "/srv", "srv")
        for worse in (
            replace(launch, hostname=bad),
            replace(launch, environment={"A": bad}),
            replace(launch, environment={bad: "a"}),
            replace(launch, sysctls={"net.ipv4.ip_forward": bad}),
            replace(launch, nics=[replace(nic, guest_name=bad)]),
            replace(launch, nics=[replace(nic, hwaddr=bad)]),
            replace(launch, mounts=[replace(mount, source=bad)]),
            replace(launch, mounts=[replace(mount, target=bad)]),
            replace(launch, limits=Limits(cpu_set=bad)),
        ):
            with pytest.raises(BadRequest):
                await rig.driver.start(worse)
        assert rig.driver.status(launch.id) is InstanceStatus.STOPPED

    async def test_start_that_fails_leaves_nothing(self, rig: Rig) -> None:
        """And is not in the way of the next one."""
        await started(rig, "c0")  # whatever a first start makes for good is there
        await rig.driver.stop(rig.launch("c0").id, timeout=None)
        before = await calm(rig)
        launch = rig.launch("c1")
        with pytest.raises(AtollError):
            await rig.driver.start(replace(launch, rootfs=Path("/no/such/root")))
        assert rig.driver.status(launch.id) is InstanceStatus.STOPPED
        await settled(rig, before)
        await started(rig)
