"""The `lxc` driver: the contract of instance drivers over liblxc."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
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
    MountSpec,
    NicSpec,
    Subscriber,
)
from atoll.drivers.instance.lxc import config, features, limits, state
from atoll.drivers.instance.lxc.exec import Command
from atoll.drivers.instance.lxc.monitor import Machine, Watcher
from atoll.host import cgroup, guest_pty, lxc_command, netns, pidfd, process, veth
from atoll.host.threads import in_thread
from atoll.host.zygote import Zygote

log = logging.getLogger(__name__)

_HOME = "/var/lib/atoll"
_START_SECONDS = 120.0
_KILL_SECONDS = 20.0
_ADOPT_SECONDS = 3.0
_LOG_TAIL = 2000

_START_ENVIRONMENT = {"PATH": "/usr/sbin:/sbin"}
"""Where liblxc finds newuidmap and newgidmap it runs them in shells, which is 10 ms of a start; root needs neither."""


class LxcDriver:
    """Runs machines by liblxc. `state_dir` also tells daemons on one host apart: their monitors, their control groups."""

    def __init__(self, state_dir: Path) -> None:
        self._lxcpath = str(state_dir)
        self._zygote = Zygote()
        self._warming: asyncio.Task[None] | None = None
        self._host: config.Host
        self._watcher: Watcher

    async def open(self, subscriber: Subscriber) -> DriverInfo:
        """Check the host and start the zygote."""
        process.find("lxc-start")
        self._host = await in_thread(_look_at_host, self._lxcpath)
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
        """Ask each candidate's command socket; a machine between two inits is asked again for a while."""
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
                raise HostError(f"Starting the instance {launch.id.name!r} failed: {await in_thread(_tail, launch, done.stderr)}")
        except BaseException:
            await asyncio.shield(asyncio.ensure_future(self._clear(launch.id)))
            raise
        machine = self._watcher.track(launch.id, *found)
        machine.may_reboot = launch.autostart_reboot
        self._watcher.tell(machine, MachineEventKind.STARTED)

    def _prepare(self, launch: Launch) -> Path:
        """Write the generated files, set the old log aside, remove what a killed monitor left."""
        if lxc_command.has_monitor(self._lxcpath, launch.id.key):
            raise Conflict(f"The instance {launch.id.name!r} is running already, unknown to this daemon")
        seccomp = launch.run_dir / "seccomp"
        text = config.render(launch, self._host, seccomp)
        _write(seccomp, launch.seccomp or config.SECCOMP)
        path = launch.run_dir / "lxc.conf"
        _write(path, text)
        for name in ("lxc.log", "console.log"):
            old = launch.log_dir / name
            if old.exists():
                old.replace(old.with_suffix(".log.old"))
        self._remove_groups(launch.id)
        return path

    async def _clear(self, id: MachineId) -> None:
        """End whatever of a machine came up in a start that failed."""
        deadline = time.monotonic() + _KILL_SECONDS
        while time.monotonic() < deadline and await in_thread(lxc_command.has_monitor, self._lxcpath, id.key):
            found = await in_thread(lxc_command.find, self._lxcpath, id.key)
            if found is not None:
                pidfd.send(found.init_fd, signal.SIGKILL)
                os.close(found.init_fd)
                os.close(found.monitor_fd)
                await in_thread(self._thaw_blocking, id)
            await asyncio.sleep(0.02)
        await in_thread(self._remove_groups, id)

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

    async def init_pid(self, machine: MachineId) -> int:
        """Host pid of the guest's init."""
        return self._running(machine).init_pid

    # Inside ----------------------------------------------------------------------------------------------------------------

    async def exec(self, machine: MachineId, spec: ExecSpec) -> Command:
        """By liblxc's attach, in a worker of the zygote."""
        found = self._running(machine)
        if not spec.command:
            raise HostError("No command to run")
        arguments = {
            "lxcpath": self._lxcpath,
            "name": machine.key,
            "init": found.init_pid,
            "command": list(spec.command),
            "environment": {"container": "lxc", **spec.environment},
            "user": spec.user,
            "group": spec.group,
            "cwd": spec.cwd,
        }
        fds = (spec.stdin, spec.stdout, spec.stderr, found.init.fd)
        return Command(await self._zygote.execute(arguments, fds), terminal=spec.terminal)

    async def open_terminal(self, machine: MachineId, *, user: int, group: int) -> tuple[int, int]:
        """From the guest's devpts."""
        found = self._running(machine)

        def work() -> tuple[int, int]:
            uid = guest_pty.host_id(cgroup.read_text(f"/proc/{found.init_pid}/uid_map"), user)
            gid = guest_pty.host_id(cgroup.read_text(f"/proc/{found.init_pid}/gid_map"), group)
            return guest_pty.open(found.init_pid, user=uid, group=gid)

        try:
            return await in_thread(work)
        except (OSError, KeyError) as error:
            raise HostError(f"No terminal in the instance {machine.name!r}: {error}") from error

    # Changes ---------------------------------------------------------------------------------------------------------------

    async def set_limits(self, machine: MachineId, limits_: Limits) -> None:
        """Write every limit's file, those without a limit too."""
        self._running(machine)
        group = self._host.payload(machine.key)
        try:
            await in_thread(limits.apply, self._host.layout, group, limits_)
        except OSError as error:
            raise HostError(f"The limits of the instance {machine.name!r} cannot be set: {error}") from error

    async def attach_nic(self, machine: MachineId, nic: NicSpec, *, userns_root: int) -> None:
        """A new pair, its inner end in the machine's namespace from the first moment."""
        found = self._running(machine)
        await in_thread(_attach_nic, found.init_pid, found.init.fd, nic)

    async def detach_nic(self, machine: MachineId, nic: NicSpec) -> None:
        """Delete the pair by its outer end."""
        self._running(machine)
        await in_thread(veth.delete, nic.host_name)

    async def attach_mount(self, machine: MachineId, mount: MountSpec) -> None:
        """In a worker of the zygote; the target is looked up below the guest's root only."""
        found = self._running(machine)
        arguments = {
            "source": mount.source,
            "target": mount.target,
            "fstype": mount.fstype,
            "options": list(mount.options),
            "is_file": mount.is_file,
            "owner": await in_thread(_guest_root, found.init_pid),
        }
        if not mount.idmapped:
            await self._zygote.call("mount", arguments, [found.init.fd])
            return
        userns = await in_thread(_open_namespace, found.init_pid, found.init.fd, "user")
        try:
            await self._zygote.call("mount", arguments, [found.init.fd, userns])
        finally:
            os.close(userns)

    async def detach_mount(self, machine: MachineId, mount: MountSpec) -> None:
        """In a worker of the zygote."""
        found = self._running(machine)
        await self._zygote.call("unmount", {"target": mount.target}, [found.init.fd])

    # Helpers ---------------------------------------------------------------------------------------------------------------

    def _running(self, id: MachineId) -> Machine:
        found = self._watcher.machines.get(id)
        if found is None:
            raise Conflict(f"The instance {id.name!r} is not running")
        return found

    def _remove_groups(self, id: MachineId) -> None:
        for group in (self._host.payload(id.key), self._host.monitor(id.key)):
            cgroup.remove(self._host.layout, group)


def _look_at_host(lxcpath: str) -> config.Host:
    """What configurations have to know of this host."""
    mark = "" if lxcpath == _HOME else "-" + hashlib.sha256(lxcpath.encode()).hexdigest()[:8]
    identity = cgroup.read_text("/proc/self/uid_map").split()
    layout, group_root = cgroup.detect(), f"atoll{mark}"
    return config.Host(
        layout=layout,
        group_root=group_root,
        absent=limits.absent(layout, group_root),
        apparmor=cgroup.read_text("/sys/module/apparmor/parameters/enabled").strip() == "Y",
        nested=identity != ["0", "0", "4294967295"],
    )


def _remove_empty(host: config.Host) -> None:
    """Remove this daemon's control groups, but for those in which anything runs."""
    cgroup.remove(host.layout, host.group_root)


def _write(path: Path, text: str) -> None:
    """Write a generated file that root alone may read, in one step."""
    fresh = path.with_name(f".{path.name}.new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "w") as file:
        file.write(text)
    fresh.replace(path)


def _tail(launch: Launch, said: bytes) -> str:
    """The end of a machine's log; of what lxc-start said, if it logged nothing."""
    try:
        text = (launch.log_dir / "lxc.log").read_text(errors="replace")[-_LOG_TAIL:].strip()
    except OSError:
        text = ""
    return text or said.decode(errors="replace")[-_LOG_TAIL:].strip() or "it ended at once"


def _guest_root(init_pid: int) -> list[int]:
    """The host's user and group id of a guest's root."""
    return [guest_pty.host_id(cgroup.read_text(f"/proc/{init_pid}/{kind}_map"), 0) for kind in ("uid", "gid")]


def _open_namespace(init_pid: int, init_fd: int, kind: str) -> int:
    """A descriptor of one of a machine's namespaces; sure to be the machine's, as its init was alive after it was opened."""
    try:
        fd = os.open(f"/proc/{init_pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Conflict("The instance is not running") from error
    if pidfd.is_gone(init_fd):
        os.close(fd)
        raise Conflict("The instance is not running")
    return fd


def _attach_nic(init_pid: int, init_fd: int, nic: NicSpec) -> None:
    inside = _open_namespace(init_pid, init_fd, "net")
    try:
        veth.create(nic.host_name, nic.guest_name, hwaddr=nic.hwaddr, netns=inside, bridge=nic.bridge, mtu=nic.mtu)
    finally:
        os.close(inside)
    try:
        with netns.open_inside(init_pid) as link:
            veth.set_up(link, nic.guest_name)
    except (OSError, HostError) as error:
        veth.delete(nic.host_name)
        raise HostError(f"Device {nic.device} could not be attached: {error}") from error
