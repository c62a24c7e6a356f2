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
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

from atoll.domain.errors import BadRequest, Conflict, DeadlineExceeded, HostError
from atoll.domain.status import InstanceStatus
from atoll.drivers.instance import sim_files
from atoll.drivers.instance.contract import (
    DiskTraffic,
    DriverInfo,
    ExecSpec,
    Launch,
    Limits,
    MachineEvent,
    MachineEventKind,
    MachineId,
    MachineState,
    Measures,
    Memory,
    MountSpec,
    NicSpec,
    NicState,
    Plugged,
    Resident,
    Subscriber,
)
from atoll.drivers.instance.sim_commands import Command
from atoll.drivers.instance.sim_console import Console
from atoll.drivers.instance.sim_console import log as console_file
from atoll.host.file_session import FileSession
from atoll.host.peer import Peer
from atoll.host.threads import in_thread

STUBBORN = "stubborn"
"""As `Launch.raw`: the machine does not shut down when asked to."""

REFUSED = "refused"
"""As `Launch.raw`: there can be no such machine."""

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

    __slots__ = ("addresses", "commands", "console", "launch", "limits", "mounts", "nics", "pid", "ports", "residents", "status")

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.limits = launch.limits
        self.nics = list(launch.nics)
        self.mounts = {mount.target.strip("/"): mount for mount in launch.mounts}
        self.commands: set[Command] = set()
        self.console: Console | None = None
        self.addresses: list[tuple[str, str, int, str]] = []
        self.ports: set[int] = set()
        self.residents: set[int] = set()
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
            nics=[_LOOPBACK, *(_nic_state(nic, () if number else self.addresses) for number, nic in enumerate(self.nics))],
        )

    def measures(self) -> Measures:
        """Its made-up figures, as monitoring counts them."""
        return Measures(
            processes=1 + len(self.commands),
            cpu_ns={("0", "user"): _CPU_NS, ("0", "system"): 0},
            memory=Memory(used=_MEMORY, limit=self.limits.memory_bytes, rss=_MEMORY, inactive_anon=_MEMORY),
            disks={"sda": DiskTraffic()},
            nics={each.name: each.counters for each in self.state().nics},
        )


_LOOPBACK = NicState("lo", "", "00:00:00:00:00:00", 65536, True, "loopback", (("inet", "127.0.0.1", 8, "local"),), _ZERO)


def _nic_state(nic: NicSpec, addresses: Sequence[tuple[str, str, int, str]]) -> NicState:
    return NicState(nic.guest_name, nic.host_name, nic.hwaddr, nic.mtu or 1500, True, "broadcast", tuple(addresses), _ZERO)


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
        if found.console is not None:
            found.console.hang_up()
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

    async def measure(self, machines: Sequence[MachineId]) -> Mapping[MachineId, Measures]:
        """Made-up figures."""
        return {id: self._machines[id].measures() for id in machines if id in self._known}

    async def listening(self, machines: Sequence[MachineId]) -> Mapping[MachineId, frozenset[int]]:
        """The ports that tests gave it."""
        return {id: frozenset(self._machines[id].ports) for id in machines if id in self._known}

    def give_address(self, machine: MachineId, family: str, address: str) -> None:
        """Its first interface gets an address, as if by DHCP."""
        self._find(machine).addresses.append((family, address, 24 if family == "inet" else 64, "global"))

    def listen(self, machine: MachineId, port: int) -> None:
        """Something in it listens on a TCP port."""
        self._find(machine).ports.add(port)

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

    async def open_console(self, machine: MachineId) -> Console:
        """A pty of the host's, which echoes."""
        found = self._find(machine)
        if found.console is not None:
            raise Conflict("This console is already connected")

        def closed() -> None:
            found.console = None

        found.console = Console(console_file(found.launch.log_dir), closed)
        return found.console

    async def console_log(self, log_dir: Path) -> bytes | None:
        """What was shown to those who attached."""
        path = console_file(log_dir)
        return path.read_bytes() if path.exists() else None

    async def clear_console_log(self, log_dir: Path) -> None:
        """Empty it."""
        console_file(log_dir).write_bytes(b"")

    async def set_limits(self, machine: MachineId, limits: Limits) -> None:
        """Remember them."""
        self._find(machine).limits = limits

    async def pin(self, cpus: Mapping[MachineId, str]) -> None:
        """Remember them."""
        for machine, text in cpus.items():
            if machine in self._known:
                found = self._machines[machine]
                found.limits = replace(found.limits, cpu_set=text)

    def check_raw(self, text: str) -> None:
        """Anything but `REFUSED` will do."""
        if text == REFUSED:
            raise BadRequest("raw.lxc: refused")

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

    async def lacking(self, wanted: Mapping[MachineId, Plugged]) -> Mapping[MachineId, frozenset[str]]:
        """By what it was launched with, and given since."""
        found: dict[MachineId, frozenset[str]] = {}
        for id, plugged in wanted.items():
            if id in self._known:
                has = {each.host_name for each in self._machines[id].nics} | set(self._machines[id].mounts)
                places = {each.host_name: each.device for each in plugged.nics}
                places |= {each.target.strip("/"): each.device for each in plugged.mounts}
                found[id] = frozenset(device for place, device in places.items() if place not in has)
        return {id: names for id, names in found.items() if names}

    async def surplus(
        self, wanted: Mapping[MachineId, Plugged], run_dirs: Mapping[MachineId, Path]
    ) -> Mapping[MachineId, Sequence[NicSpec]]:
        """By what it was launched with, and has."""
        found: dict[MachineId, list[NicSpec]] = {}
        for id, plugged in wanted.items():
            if id in self._known:
                kept, launched = {each.host_name for each in plugged.nics}, self._machines[id].launch.nics
                found[id] = [each for each in self._machines[id].nics if each in launched and each.host_name not in kept]
        return {id: nics for id, nics in found.items() if nics}

    async def open_files(self, machine: MachineId, root: Path | None) -> FileSession:
        """A thread, on the machine's root as the host has it."""
        return await in_thread(sim_files.start, root or self._find(machine).launch.rootfs)

    async def init_pid(self, machine: MachineId) -> int:
        """A number of no process."""
        return self._find(machine).pid

    async def find_by_process(self, process: Peer) -> Resident | None:
        """A command by its number; a real process where a test said that it is in (`inhabit`)."""
        if not process.is_alive:
            return None
        for id in self._known:
            found = self._machines[id]
            if process.pid in found.residents or any(command.pid == process.pid for command in found.commands):
                return Resident(id, found.launch.idmap.root if found.launch.idmap is not None else 0)
        return None

    def inhabit(self, machine: MachineId, pid: int) -> None:
        """A process of the host counts as one of the machine's, until that stops."""
        self._find(machine).residents.add(pid)

    def _find(self, machine: MachineId) -> SimMachine:
        if machine not in self._known:
            raise Conflict(f"The instance {machine.name!r} is not running")
        return self._machines[machine]

    def _tell(self, machine: MachineId, kind: MachineEventKind) -> None:
        self._subscriber(MachineEvent(machine, kind))


def _refuse_lines(value: object, *, field: str = "") -> None:
    """BadRequest for a line break or a NUL anywhere in a launch, but in the texts that have lines."""
    if isinstance(value, str):
        if field not in ("raw", "apparmor") and any(mark in value for mark in "\r\n\0"):
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
