"""The `sim` driver: machines that exist in memory alone. For tests of everything above the drivers, and at scale.

It keeps every promise of the contract without privileges: its machines start, stop, reboot and freeze, have figures,
interfaces and limits, and run the handful of commands in `sim_commands`. Machines outlive the driver object (not the process),
so that the restart of a daemon can be played.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path

from atoll.domain.errors import BadRequest, Conflict, DeadlineExceeded, HostError
from atoll.domain.status import InstanceStatus
from atoll.drivers.instance.contract import (
    DriverInfo,
    ExecSpec,
    Launch,
    Limits,
    MachineEvent,
    MachineEventKind,
    MachineId,
    MachineState,
    MountSpec,
    NicSpec,
    NicState,
    Subscriber,
)
from atoll.drivers.instance.sim_commands import Command

STUBBORN = "stubborn"
"""As `Launch.raw`: the machine does not shut down when asked to."""

_COUNTERS = (
    "bytes_received",
    "bytes_sent",
    "packets_received",
    "packets_sent",
    "errors_received",
    "errors_sent",
    "packets_dropped_inbound",
    "packets_dropped_outbound",
)
_ZERO = dict.fromkeys(_COUNTERS, 0)
_MEMORY = 1 << 20
_CPU_NS = 1_000_000

_pids = itertools.count(1_000_000)
_worlds: dict[Path, dict[MachineId, SimMachine]] = {}


class SimMachine:
    """A machine that runs; slotted, as there may be ten thousand."""

    __slots__ = ("commands", "launch", "limits", "mounts", "nics", "pid", "status")

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.limits = launch.limits
        self.nics = list(launch.nics)
        self.mounts = {mount.target.strip("/"): mount for mount in launch.mounts}
        self.commands: set[Command] = set()
        self.status = InstanceStatus.RUNNING
        self.pid = next(_pids)

    def state(self) -> MachineState:
        """Its made-up figures."""
        return MachineState(
            status=self.status,
            pid=self.pid,
            processes=1 + len(self.commands),
            cpu_ns=_CPU_NS,
            memory=_MEMORY,
            memory_peak=_MEMORY,
            nics=[_LOOPBACK, *map(_nic_state, self.nics)],
        )


_LOOPBACK = NicState("lo", "", "00:00:00:00:00:00", 65536, True, "loopback", (("inet", "127.0.0.1", 8, "local"),), _ZERO)


def _nic_state(nic: NicSpec) -> NicState:
    return NicState(nic.guest_name, nic.host_name, nic.hwaddr, nic.mtu or 1500, True, "broadcast", (), _ZERO)


class SimDriver:
    """The contract, in memory."""

    def __init__(self, state_dir: Path) -> None:
        self._machines = _worlds.setdefault(state_dir, {})
        self._known: set[MachineId] = set()
        self._subscriber: Subscriber = lambda _: None

    async def open(self, subscriber: Subscriber) -> DriverInfo:
        """Always works."""
        self._subscriber = subscriber
        return DriverInfo("sim", "1.0")

    async def close(self) -> None:
        """Machines go on: another driver over the same state directory can adopt them."""
        self._known.clear()
        self._subscriber = lambda _: None

    async def adopt(self, candidates: Sequence[MachineId], run_dirs: Mapping[MachineId, Path]) -> set[MachineId]:
        """Those that are there."""
        found = {id for id in candidates if id in self._machines}
        self._known |= found
        return found

    async def start(self, launch: Launch) -> None:
        """Check what a real driver would refuse, and be running."""
        _refuse_lines(launch)
        if launch.id in self._machines:
            raise Conflict(f"The instance {launch.id.name!r} is running already")
        if not launch.rootfs.is_dir():
            raise HostError(f"Starting the instance {launch.id.name!r} failed: there is no {launch.rootfs}")
        self._machines[launch.id] = SimMachine(launch)
        self._known.add(launch.id)
        self._tell(launch.id, MachineEventKind.STARTED)

    async def stop(self, machine: MachineId, *, timeout: float | None) -> None:
        """At once, unless it is stubborn."""
        found = self._find(machine)
        if timeout is not None and found.launch.raw == STUBBORN:
            await asyncio.sleep(timeout) if timeout >= 0 else await asyncio.get_running_loop().create_future()
            raise DeadlineExceeded(f"The instance {machine.name!r} did not stop in {timeout:g} seconds")
        self.end(machine)

    def end(self, machine: MachineId) -> None:
        """The machine ends, for whatever reason: also what tests call to play a poweroff."""
        found = self._machines.pop(machine, None)
        if found is None:
            return
        for command in list(found.commands):
            command.end(137)
        if machine in self._known:
            self._known.discard(machine)
            self._tell(machine, MachineEventKind.STOPPED)

    def reboot(self, machine: MachineId) -> None:
        """The machine restarts from inside."""
        found = self._find(machine)
        if not found.launch.autostart_reboot:
            self.end(machine)
            return
        for command in list(found.commands):
            command.end(137)
        found.pid = next(_pids)
        found.status = InstanceStatus.RUNNING
        self._tell(machine, MachineEventKind.REBOOTED)

    async def freeze(self, machine: MachineId) -> None:
        """Say so."""
        self._find(machine).status = InstanceStatus.FROZEN
        self._tell(machine, MachineEventKind.FROZEN)

    async def thaw(self, machine: MachineId) -> None:
        """Say so."""
        self._find(machine).status = InstanceStatus.RUNNING
        self._tell(machine, MachineEventKind.THAWED)

    def status(self, machine: MachineId) -> InstanceStatus:
        """From memory."""
        return self._machines[machine].status if machine in self._known else InstanceStatus.STOPPED

    async def state(self, machines: Sequence[MachineId]) -> Mapping[MachineId, MachineState]:
        """Made-up figures."""
        stopped = MachineState(InstanceStatus.STOPPED)
        return {id: self._machines[id].state() if id in self._known else stopped for id in machines}

    async def exec(self, machine: MachineId, spec: ExecSpec) -> Command:
        """One of the commands that are known, on the descriptors that are real."""
        found = self._find(machine)
        actions = {"poweroff": lambda: self.end(machine), "reboot": lambda: self.reboot(machine)}
        command = Command(next(_pids), spec, found.mounts, actions)
        found.commands.add(command)
        command.start(lambda: found.commands.discard(command))
        return command

    async def open_terminal(self, machine: MachineId, *, user: int, group: int) -> tuple[int, int]:
        """A pty of the host's."""
        self._find(machine)
        return os.openpty()

    async def set_limits(self, machine: MachineId, limits: Limits) -> None:
        """Remember them."""
        self._find(machine).limits = limits

    def limits(self, machine: MachineId) -> Limits:
        """The limits in force."""
        return self._find(machine).limits

    async def attach_nic(self, machine: MachineId, nic: NicSpec, *, userns_root: int) -> None:
        """It has one more."""
        self._find(machine).nics.append(nic)

    async def detach_nic(self, machine: MachineId, nic: NicSpec) -> None:
        """It has it no more."""
        found = self._find(machine)
        found.nics = [other for other in found.nics if other.host_name != nic.host_name]

    async def attach_mount(self, machine: MachineId, mount: MountSpec) -> None:
        """Commands see it."""
        self._find(machine).mounts[mount.target.strip("/")] = mount

    async def detach_mount(self, machine: MachineId, mount: MountSpec) -> None:
        """Commands do not see it any more."""
        self._find(machine).mounts.pop(mount.target.strip("/"), None)

    async def init_pid(self, machine: MachineId) -> int:
        """A number of no process."""
        return self._find(machine).pid

    def _find(self, machine: MachineId) -> SimMachine:
        if machine not in self._known:
            raise Conflict(f"The instance {machine.name!r} is not running")
        return self._machines[machine]

    def _tell(self, machine: MachineId, kind: MachineEventKind) -> None:
        self._subscriber(MachineEvent(machine, kind))


def _refuse_lines(value: object, *, field: str = "") -> None:
    """BadRequest for a line break or a NUL anywhere in a launch, but in the texts that have lines."""
    if isinstance(value, str):
        if field not in ("raw", "seccomp") and any(mark in value for mark in "\r\n\0"):
            raise BadRequest(f"The value of {field} has a line break or a NUL in it")
    elif is_dataclass(value):
        for each in fields(value):
            _refuse_lines(getattr(value, each.name), field=each.name)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            _refuse_lines(key, field=field)
            _refuse_lines(inner, field=field)
    elif isinstance(value, Sequence):
        for inner in value:
            _refuse_lines(inner, field=field)
