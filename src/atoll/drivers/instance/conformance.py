"""The conformance suite of instance drivers: what every driver has to do, whatever it runs machines with.

A driver's own test module subclasses `Conformance` and gives the fixture `rig`. Needs pytest and pytest-asyncio (auto mode).
The machines' root file system has to hold a shell and the common small commands, as busybox brings them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from atoll.domain.errors import AtollError, BadRequest, Conflict, DeadlineExceeded
from atoll.domain.status import InstanceStatus
from atoll.drivers.instance.contract import (
    ExecSpec,
    InstanceDriver,
    Launch,
    Limits,
    MachineEvent,
    MachineEventKind,
    MachineId,
    MountSpec,
    NicSpec,
)
from atoll.host.threads import in_thread

MEBIBYTE = 1 << 20
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


def _make_marked(folder: Path) -> None:
    folder.mkdir()
    (folder / "mark").write_text(folder.name)


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


class Conformance:
    """One method per promise of the contract."""

    # Life

    async def test_starts_and_is_killed(self, rig: Rig) -> None:
        """STARTED and STOPPED are told in order, and the status follows."""
        machine = await started(rig)
        assert rig.driver.status(machine) is InstanceStatus.RUNNING
        assert await rig.driver.init_pid(machine) > 0
        await rig.driver.stop(machine, timeout=None)
        assert rig.driver.status(machine) is InstanceStatus.STOPPED
        assert [event.kind for event in rig.events] == [MachineEventKind.STARTED, MachineEventKind.STOPPED]

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

    # A daemon that is killed

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

    # Commands

    async def test_exit_statuses(self, rig: Rig) -> None:
        """As a shell would tell them."""
        machine = await started(rig)
        assert (await run(rig, machine, "true"))[0] == 0
        assert (await run(rig, machine, "false"))[0] == 1
        assert (await run(rig, machine, "sh", "-c", "exit 7"))[0] == 7
        assert (await run(rig, machine, "no-such-command"))[0] == 127
        assert (await run(rig, machine, "/no/such/command"))[0] == 127
        assert (await run(rig, machine, "/etc/passwd"))[0] == 126

    async def test_signals(self, rig: Rig) -> None:
        """128 and the signal's number."""
        machine = await started(rig)
        for number in (signal.SIGTERM, signal.SIGKILL):
            process = await rig.driver.exec(machine, spec(["sleep", "1000"], self._nothing()))
            await asyncio.sleep(0.05)
            process.signal(number)
            assert await asyncio.wait_for(process.wait(), SECONDS) == 128 + number
            process.signal(number)  # to what has ended: nothing

    @staticmethod
    def _nothing() -> tuple[int, int, int]:
        """Standard descriptors on which nothing happens. Opened once: the suite counts descriptors."""
        if not _null:
            _null.append(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
        return _null[0], _null[0], _null[0]

    async def test_no_byte_is_lost(self, rig: Rig) -> None:
        """Ten mebibytes out; input comes back as it went in; errors have a stream of their own."""
        machine = await started(rig)
        code, out, err = await run(rig, machine, "head", "-c", str(10 * MEBIBYTE), "/dev/zero")
        assert (code, len(out), err) == (0, 10 * MEBIBYTE, b"")
        given = os.urandom(MEBIBYTE)
        assert await run(rig, machine, "cat", given=given) == (0, given, b"")
        assert (await run(rig, machine, "sh", "-c", "echo oh >&2"))[1:] == (b"", b"oh\n")

    async def test_environment_directory_user_group(self, rig: Rig) -> None:
        """Nothing but the given environment; a directory that does not exist falls back to /."""
        machine = await started(rig)
        path = {"PATH": "/bin:/usr/bin"}
        _, out, _ = await run(rig, machine, "env", environment={**path, "COLOUR": "blau grün"})
        found = set(out.decode().split("\n"))
        assert "COLOUR=blau grün" in found, out
        assert not {line for line in found if line.startswith(("SHLVL", "LXC_", "PYTHON", "INVOCATION"))}
        assert (await run(rig, machine, "pwd", cwd="/etc"))[1] == b"/etc\n"
        assert (await run(rig, machine, "pwd", cwd="/no/such/place"))[1] == b"/\n"
        assert (await run(rig, machine, "id", "-u", user=1000, group=1001))[1] == b"1000\n"
        assert (await run(rig, machine, "id", "-g", user=1000, group=1001))[1] == b"1001\n"

    async def test_large_arguments(self, rig: Rig) -> None:
        """An argument as large as the kernel takes one, and a few of them."""
        machine = await started(rig)
        words = ["x" * 100_000] * 3
        assert (await run(rig, machine, "echo", *words))[1] == " ".join(words).encode() + b"\n"

    async def test_terminal(self, rig: Rig) -> None:
        """A fresh pty of the machine's is the command's terminal."""
        machine = await started(rig)
        master, slave = await rig.driver.open_terminal(machine, user=0, group=0)
        assert not os.get_inheritable(master)
        assert not os.get_inheritable(slave)
        process = await rig.driver.exec(machine, spec(["test", "-t", "0"], (slave, slave, slave), terminal=True))
        assert await asyncio.wait_for(process.wait(), SECONDS) == 0
        os.close(slave)
        os.close(master)

    async def test_many_commands_at_once(self, rig: Rig) -> None:
        """Fifty, each with its own status and output."""
        machine = await started(rig)
        commands = [run(rig, machine, "sh", "-c", f"echo {number}; exit {number}") for number in range(50)]
        results = await asyncio.gather(*commands)
        assert results == [(number, f"{number}\n".encode(), b"") for number in range(50)]

    async def test_commands_leave_nothing(self, rig: Rig) -> None:
        """After five hundred commands no descriptor, process or control group is left over."""
        machine = await started(rig)
        await asyncio.gather(*(run(rig, machine, "true") for _ in range(40)))  # threads and buffers are there
        self._nothing()
        before = await calm(rig)
        for _ in range(20):
            codes = await asyncio.gather(*(self._quiet(rig, machine) for _ in range(25)))
            assert set(codes) == {0}
        await settled(rig, before)

    async def _quiet(self, rig: Rig, machine: MachineId) -> int:
        process = await rig.driver.exec(machine, spec(["true"], self._nothing()))
        return await asyncio.wait_for(process.wait(), SECONDS)

    # Looks

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

    # Changes

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
        await rig.driver.detach_mount(machine, second)
        await rig.driver.detach_mount(machine, second)
        assert (await run(rig, machine, "cat", "/srv/deep/second/mark"))[0] != 0

    # What cannot be

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


_null: list[int] = []
