"""The `lxc` driver: the contract of instance drivers over liblxc."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from atoll.domain.errors import AtollError, Conflict, DeadlineExceeded, HostError, Unsupported
from atoll.domain.status import InstanceStatus
from atoll.drivers.instance.contract import (
    DriverInfo,
    ExecSpec,
    Launch,
    Limits,
    MachineEventKind,
    MachineId,
    MachineState,
    Measures,
    MountSpec,
    NicSpec,
    Plugged,
    Resident,
    Subscriber,
)
from atoll.drivers.instance.lxc import config, console, exec, features, hotplug, launching, limits, raw, residents, state
from atoll.drivers.instance.lxc.monitor import Machine, Watcher
from atoll.host import cgroup, file_session, guest_pty, listening, lxc_command, pidfd, process, streams, threads, veth
from atoll.host.peer import Peer
from atoll.host.threads import in_thread
from atoll.host.zygote import Zygote

log = logging.getLogger(__name__)

_START_SECONDS = 120.0
_KILL_SECONDS = 20.0
_ADOPT_SECONDS = 3.0
_LEAVING_SECONDS = 1.0

_START_ENVIRONMENT = {"PATH": "/usr/sbin:/sbin"}
"""Where liblxc finds newuidmap and newgidmap it runs them in shells, which is 10 ms of a start; root needs neither."""


class LxcDriver:
    """Runs machines by liblxc. `state_dir` also tells daemons on one host apart: their monitors, their control groups."""

    def __init__(self, state_dir: Path) -> None:
        self._lxcpath = str(state_dir)
        self._zygote = Zygote()
        self._warming: asyncio.Task[None] | None = None
        self._warned: set[str] = set()
        self._host: config.Host
        self._watcher: Watcher

    async def open(self, subscriber: Subscriber) -> DriverInfo:
        """Check the host and start the zygote."""
        process.find("lxc-start")
        self._host = await in_thread(launching.look_at_host, self._lxcpath)
        self._watcher = Watcher(self._lxcpath, subscriber, self._remove_groups)
        await self._zygote.start()
        try:
            info = await features.describe(self._zygote)
        except HostError as error:
            await self._zygote.stop()
            raise Unsupported("liblxc cannot be loaded", hint="install the package 'liblxc1'") from error
        await self._zygote.rest()
        return info

    def _warm(self) -> None:
        """Have the zygote ready for the first command, in the shadow of what is done meanwhile."""
        if self._warming is None and not self._zygote.pid:
            self._warming = asyncio.create_task(self._start_zygote(), name="zygote start")

    async def _start_zygote(self) -> None:
        try:
            await self._zygote.start()
        except AtollError as error:
            log.warning("The zygote does not start: %s", error)  # whoever needs it tries again and is told
        finally:
            self._warming = None

    async def close(self) -> None:
        """Stop the zygote and watching; machines go on."""
        await self._watcher.close()
        if self._warming is not None:
            await asyncio.wait([self._warming])
        await self._zygote.stop()
        await in_thread(_remove_empty, self._host)

    # Life ------------------------------------------------------------------------------------------------------------------

    async def adopt(self, candidates: Sequence[MachineId], run_dirs: Mapping[MachineId, Path]) -> set[MachineId]:
        """Ask each candidate's command socket; a machine between two inits is asked again for a while. One that gets none is
        ended: the start that it is from was cut off, or its monitor waits for ever for a process that was killed."""
        waiting = [id for id in candidates if id not in self._watcher.machines]
        deadline = time.monotonic() + _ADOPT_SECONDS
        while waiting:
            found, waiting = await in_thread(self._find_all, waiting)
            for id, (running, links, frozen) in found.items():
                machine = self._watcher.track(id, running, links)
                machine.status = InstanceStatus.FROZEN if frozen else InstanceStatus.RUNNING
            if not waiting or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.05)
        await asyncio.gather(*(self._clear(id, _ADOPT_SECONDS) for id in waiting))
        adopted = {id for id in candidates if id in self._watcher.machines}
        if adopted:
            self._warm()
        return adopted

    def _find_all(self, ids: Sequence[MachineId]) -> tuple[dict[MachineId, state.Found], list[MachineId]]:
        """(those that run, those whose monitor runs without an init at the moment)"""
        found: dict[MachineId, state.Found] = {}
        waiting = []
        for id in ids:
            answer = self._watcher.find_blocking(id)
            if answer is not None:
                found[id] = (*answer, cgroup.is_frozen(self._host.layout, self._host.payload(id.key)))
            elif lxc_command.has_monitor(self._lxcpath, id.key):
                waiting.append(id)
        return found, waiting

    async def start(self, launch: Launch) -> None:
        """Write its configuration, start its monitor, and watch both."""
        if launch.id in self._watcher.machines:
            raise Conflict(f"The instance {launch.id.name!r} is running already")
        self._warm()
        self._warn_of(launch.limits)
        path = await in_thread(self._prepare, launch)
        try:
            done = await process.run(
                ["lxc-start", "-P", self._lxcpath, "-n", launch.id.key, "-f", str(path), "-d"],
                check=False,
                env=_START_ENVIRONMENT,
                timeout=_START_SECONDS,
            )
            found = await self._watcher.find(launch.id) if done.code == 0 else None
            if found is None:
                said = await in_thread(launching.tail, launch, done.stderr)
                raise HostError(f"Starting the instance {launch.id.name!r} failed: {said}")
        except BaseException:
            await asyncio.shield(asyncio.ensure_future(self._clear(launch.id, _KILL_SECONDS)))
            raise
        machine = self._watcher.track(launch.id, *found)
        machine.may_reboot = launch.autostart_reboot
        self._watcher.tell(machine, MachineEventKind.STARTED)

    def _prepare(self, launch: Launch) -> Path:
        """Write the generated files, set the old log aside, remove what a killed monitor left."""
        if lxc_command.has_monitor(self._lxcpath, launch.id.key):
            raise Conflict(f"The instance {launch.id.name!r} is running already, unknown to this daemon")
        path = launching.write_files(launch, self._host)
        self._remove_groups(launch.id)
        return path

    async def _clear(self, id: MachineId, seconds: float) -> None:
        """End whatever of a machine came up in a start that failed, also a monitor that does not end by itself."""
        if not await self._ends(id, seconds):
            await in_thread(self._kill_monitor, id)
            await self._ends(id, seconds)
        await in_thread(self._remove_groups, id)

    async def _ends(self, id: MachineId, seconds: float) -> bool:
        """Kill its init as soon as there is one. Whether the monitor has ended in that time."""
        deadline = time.monotonic() + seconds
        while await in_thread(lxc_command.has_monitor, self._lxcpath, id.key):
            if time.monotonic() > deadline:
                return False
            found = await in_thread(lxc_command.find, self._lxcpath, id.key)
            if found is not None:
                pidfd.send(found.init_fd, signal.SIGKILL)
                os.close(found.init_fd)
                os.close(found.monitor_fd)
                await in_thread(self._thaw_blocking, id)
            await asyncio.sleep(0.02)
        return True

    def _kill_monitor(self, id: MachineId) -> None:
        """What it has begun of its machine dies with it."""
        monitor = lxc_command.open_monitor(self._lxcpath, id.key)
        if monitor is not None:
            log.warning("The monitor of a machine that did not come up is killed", extra={"machine": id.key})
            pidfd.send(monitor, signal.SIGKILL)
            os.close(monitor)

    async def stop(self, machine: MachineId, *, timeout: float | None) -> None:
        """Kill init, or ask it to shut down; then wait for the monitor."""
        found = self._running(machine)
        if found.status is InstanceStatus.FROZEN and timeout is not None:
            await self.thaw(machine)
        if timeout is None:
            await self._kill(found)
            return
        try:
            async with asyncio.timeout(timeout if timeout >= 0 else None):
                await found.ask_to_stop()
                await found.gone.wait()
        except TimeoutError as error:
            raise DeadlineExceeded(f"The instance {machine.name!r} did not stop in {timeout:g} seconds") from error

    async def _kill(self, machine: Machine) -> None:
        """Kill init and, should the monitor not end after it, the monitor."""
        machine.kill_init()
        if machine.status is InstanceStatus.FROZEN:
            await in_thread(self._thaw_blocking, machine.id)
        for last in (False, True):
            try:
                async with asyncio.timeout(_KILL_SECONDS):
                    await machine.gone.wait()
                return
            except TimeoutError:
                log.error("The monitor of a machine does not end", extra={"machine": machine.id.key, "killed": last})
                if machine.monitor.fd >= 0:
                    pidfd.send(machine.monitor.fd, signal.SIGKILL)
        raise HostError(f"The processes of the instance {machine.id.name!r} do not end")

    async def freeze(self, machine: MachineId) -> None:
        """By the freezer."""
        found = self._running(machine)
        await self._set_frozen(found, frozen=True)

    async def thaw(self, machine: MachineId) -> None:
        """By the freezer."""
        found = self._running(machine)
        await self._set_frozen(found, frozen=False)

    async def _set_frozen(self, machine: Machine, *, frozen: bool) -> None:
        group = self._host.payload(machine.id.key)
        try:
            await in_thread(cgroup.freeze, self._host.layout, group, frozen=frozen)
        except (OSError, KeyError) as error:
            raise HostError(f"The instance {machine.id.name!r} cannot be {'frozen' if frozen else 'thawed'}: {error}") from error
        wanted = InstanceStatus.FROZEN if frozen else InstanceStatus.RUNNING
        if machine.status is not wanted and not machine.gone.is_set():
            machine.status = wanted
            self._watcher.tell(machine, MachineEventKind.FROZEN if frozen else MachineEventKind.THAWED)

    def _thaw_blocking(self, id: MachineId) -> None:
        """Thaw what has been killed: frozen by v1's freezer, it does not even die."""
        with contextlib.suppress(OSError, KeyError):  # it died before, or this host has no freezer
            cgroup.freeze(self._host.layout, self._host.payload(id.key), frozen=False)

    # Looks -----------------------------------------------------------------------------------------------------------------

    def status(self, machine: MachineId) -> InstanceStatus:
        """From memory."""
        found = self._watcher.machines.get(machine)
        return found.status if found is not None else InstanceStatus.STOPPED

    async def state(self, machines: Sequence[MachineId]) -> Mapping[MachineId, MachineState]:
        """One pass in one thread."""
        looks = {}
        for id in machines:
            found = self._watcher.machines.get(id)
            if found is not None:
                looks[id] = state.Look(found.status, found.init_pid, self._host.payload(id.key), found.links)
        read = await in_thread(state.read_all, self._host.layout, looks) if looks else {}
        return {id: read.get(id) or MachineState(InstanceStatus.STOPPED) for id in machines}

    async def measure(self, machines: Sequence[MachineId]) -> Mapping[MachineId, Measures]:
        """One pass in one thread."""
        from atoll.drivers.instance.lxc import measures  # many servers are never asked

        running = {id: self._watcher.machines[id].init_pid for id in machines if id in self._watcher.machines}
        looks = {id: (pid, self._host.payload(id.key)) for id, pid in running.items()}
        return await in_thread(measures.read_all, self._host.layout, looks) if looks else {}

    async def listening(self, machines: Sequence[MachineId]) -> Mapping[MachineId, frozenset[int]]:
        """One pass in one thread."""
        pids = {id: self._watcher.machines[id].init_pid for id in machines if id in self._watcher.machines}
        return await in_thread(lambda: {id: listening.tcp_ports(pid) for id, pid in pids.items()})

    async def init_pid(self, machine: MachineId) -> int:
        """Host pid of the guest's init."""
        return self._running(machine).init_pid

    async def open_files(self, machine: MachineId, root: Path | None) -> file_session.FileSession:
        """In a worker of the zygote."""
        if root is not None:
            place = await threads.obtained(os.close, os.open, root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                return await file_session.start(self._zygote, place)
            finally:
                os.close(place)
        found = self._running(machine)
        with found.hold_init() as (init_pid, init_fd):
            session = await file_session.start(self._zygote, init_fd, init=init_pid)
        session.kill_when(found.gone)
        return session

    async def find_by_process(self, process: Peer) -> Resident | None:
        """By the pid namespaces it is in."""
        return await residents.find(process, self._watcher, self._host)

    # Inside ----------------------------------------------------------------------------------------------------------------

    async def exec(self, machine: MachineId, spec: ExecSpec) -> exec.Command:
        """By liblxc's attach, in a worker of the zygote."""
        found = self._running(machine)
        if not spec.command:
            raise HostError("No command to run")
        return await exec.start(self._zygote, found, spec, lxcpath=self._lxcpath, host=self._host)

    async def open_terminal(self, machine: MachineId, *, user: int, group: int) -> tuple[int, int]:
        """From the guest's devpts."""
        found = self._running(machine)

        def work() -> tuple[int, int]:
            uid = guest_pty.host_id(cgroup.read_text(f"/proc/{found.init_pid}/uid_map"), user)
            gid = guest_pty.host_id(cgroup.read_text(f"/proc/{found.init_pid}/gid_map"), group)
            return guest_pty.open(found.init_pid, user=uid, group=gid)

        try:
            return await threads.obtained(streams.close, work)
        except (OSError, KeyError) as error:
            raise HostError(f"No terminal in the instance {machine.name!r}: {error}") from error

    async def open_console(self, machine: MachineId) -> console.Console:
        """By the monitor."""
        return await console.attach(self._lxcpath, self._running(machine))

    async def console_log(self, log_dir: Path) -> bytes | None:
        """The monitor's log."""
        return await in_thread(console.read, log_dir)

    async def clear_console_log(self, log_dir: Path) -> None:
        """Empty the monitor's log."""
        await in_thread(console.clear, log_dir)

    # Changes ---------------------------------------------------------------------------------------------------------------

    async def set_limits(self, machine: MachineId, limits_: Limits) -> None:
        """Write every limit's file, those without a limit too."""
        self._running(machine)
        self._warn_of(limits_)
        group = self._host.payload(machine.key)
        try:
            await in_thread(limits.apply, self._host.layout, group, limits_)
        except OSError as error:
            in_use = error.errno == errno.EBUSY and "memory." in str(error)
            why = "more memory is in use than limits.memory allows" if in_use else str(error)
            raise HostError(f"The limits of the instance {machine.name!r} cannot be set: {why}") from error

    def _warn_of(self, limits_: Limits) -> None:
        """Say once of each kind of limit that this host cannot hold that it does not: the machine runs all the same."""
        for name in limits.unenforceable(limits_, self._host.layout, self._host.absent):
            if name not in self._warned:
                self._warned.add(name)
                log.warning("This host's control groups cannot hold limits of kind %r: they have no effect", name)

    async def pin(self, cpus: Mapping[MachineId, str]) -> None:
        """One file each, in one thread."""
        groups = {self._host.payload(id.key): text for id, text in cpus.items() if id in self._watcher.machines}
        refused = await in_thread(limits.pin, self._host.layout, groups)
        if refused:
            raise HostError("; ".join(refused))

    def check_raw(self, text: str) -> None:
        """By the keys that liblxc documents."""
        raw.check(text)

    async def attach_nic(self, machine: MachineId, nic: NicSpec, *, userns_root: int) -> None:
        """A new pair, its inner end in the machine's namespace from the first moment."""
        found = self._running(machine)
        with found.hold_init() as (init_pid, init_fd):
            await in_thread(hotplug.attach_nic, init_pid, init_fd, nic)

    async def detach_nic(self, machine: MachineId, nic: NicSpec) -> None:
        """Delete the pair by its outer end."""
        self._running(machine)
        await in_thread(veth.delete, nic.host_name)

    async def attach_mount(self, machine: MachineId, mount: MountSpec) -> None:
        """In a worker of the zygote; the target is looked up below the guest's root only."""
        await hotplug.attach_mount(self._zygote, self._running(machine), mount)

    async def detach_mount(self, machine: MachineId, mount: MountSpec) -> None:
        """In a worker of the zygote."""
        await hotplug.detach_mount(self._zygote, self._running(machine), mount)

    async def lacking(self, wanted: Mapping[MachineId, Plugged]) -> Mapping[MachineId, frozenset[str]]:
        """One pass in one thread."""
        machines = self._watcher.machines
        looks = [(id, machines[id].init_pid, plugged) for id, plugged in wanted.items() if id in machines]
        return await in_thread(hotplug.lacking, looks) if looks else {}

    async def surplus(
        self, wanted: Mapping[MachineId, Plugged], run_dirs: Mapping[MachineId, Path]
    ) -> Mapping[MachineId, Sequence[NicSpec]]:
        """By the notes of their launches."""
        found = ((self._watcher.machines.get(id), plugged) for id, plugged in wanted.items())
        looks = [
            (each.id, each.links, plugged, run_dirs[each.id])
            for each, plugged in found
            if each is not None and each.links is not None
        ]
        return await in_thread(hotplug.surplus, looks) if looks else {}

    # Helpers ---------------------------------------------------------------------------------------------------------------

    def _running(self, id: MachineId) -> Machine:
        found = self._watcher.machines.get(id)
        if found is None:
            raise Conflict(f"The instance {id.name!r} is not running")
        return found

    def _remove_groups(self, id: MachineId) -> None:
        """Those of a machine that has ended. The zygote's workers of last commands may be in them, which end by themselves; but
        not where the guest froze them."""
        for group in (self._host.payload(id.key), self._host.monitor(id.key)):
            if killed := cgroup.clear(self._host.layout, group, seconds=_LEAVING_SECONDS):
                log.warning("What stayed in a machine's group was killed", extra={"group": group, "processes": killed})


def _remove_empty(host: config.Host) -> None:
    """Remove this daemon's control groups, but for those in which anything runs."""
    cgroup.remove(host.layout, host.group_root)
