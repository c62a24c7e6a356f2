"""Watching machines: what runs, what ended, what rebooted.

A machine is held by a monitor (`lxc-start`), whose child is the machine's init. Both are watched by pidfd: when init has gone
and the monitor has too, the machine has stopped; when the monitor stays and comes up with another init, the guest rebooted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator

from atoll.domain.errors import Conflict
from atoll.domain.status import InstanceStatus
from atoll.drivers.instance.contract import MachineEvent, MachineEventKind, MachineId, Subscriber
from atoll.host import lxc_command, netns, peer, pidfd
from atoll.host.threads import in_thread

log = logging.getLogger(__name__)

_LOOK_FIRST = 0.004
_LOOK_MOST = 0.05
_SIGRTMIN = 34
_HALT_BY_SYSTEMD = _SIGRTMIN + 3
_LISTEN_SECONDS = 5.0


class Machine:
    """A machine that runs. Its status is changed on the event loop only."""

    def __init__(self, id: MachineId, running: lxc_command.Running, links: netns.Watch | None) -> None:
        self.id = id
        self.status = InstanceStatus.RUNNING
        self.init_pid = running.init_pid
        self.namespace = peer.pid_namespace(running.init_pid)
        self.links = links
        self.gone = asyncio.Event()
        self.may_reboot = True  # False: end it instead
        self.monitor: pidfd.Watch
        self.init: pidfd.Watch

    @property
    def has_init(self) -> bool:
        """Whether its init is alive, and so `init_pid` and `namespace` are its own."""
        return self.init.fd >= 0 and not pidfd.is_gone(self.init.fd)

    @contextlib.contextmanager
    def hold_init(self) -> Iterator[tuple[int, int]]:
        """(process id, pidfd) of its init, which stay those of that process for as long as the block lasts: `init` may be closed
        meanwhile, and its number another file's. Conflict for a machine that has ended."""
        if self.init.fd < 0:
            raise Conflict(f"The instance {self.id.name!r} is not running")
        handle = os.dup(self.init.fd)
        try:
            yield self.init_pid, handle
        finally:
            os.close(handle)

    def kill_init(self) -> None:
        """End it at once, also if it is just about to come up again."""
        self.may_reboot = False
        if self.init.fd >= 0:
            pidfd.send(self.init.fd, signal.SIGKILL)

    async def ask_to_stop(self) -> None:
        """Ask init to shut the machine down, by the signal that it waits for.

        Of one that seems to listen to none it is not known whether it does: it may have only just begun, when the kernel throws
        the signal away, or stand in sigtimedwait, which hides what it waits for. It is asked again for a while.
        """
        deadline = time.monotonic() + _LISTEN_SECONDS
        while self.init.fd >= 0:
            number = halt_signal(self.init_pid)
            pidfd.send(self.init.fd, number or signal.SIGPWR)
            if number is not None or time.monotonic() > deadline:
                return
            await asyncio.sleep(0.5)

    def close(self) -> None:
        """Let go of all descriptors."""
        self.monitor.close()
        self.init.close()
        if self.links is not None:
            self.links.close()


class Watcher:
    """All machines that run, each watched until it has stopped."""

    def __init__(self, lxcpath: str, subscriber: Subscriber, clean: Callable[[MachineId], None]) -> None:
        self._lxcpath = lxcpath
        self._subscriber = subscriber
        self._clean = clean
        self._tasks: set[asyncio.Task[None]] = set()
        self.machines: dict[MachineId, Machine] = {}
        self.by_namespace: dict[int, Machine] = {}

    async def find(self, id: MachineId) -> tuple[lxc_command.Running, netns.Watch | None] | None:
        """What runs under that name, and a watch on its interfaces; the caller hands both to `track`."""
        return await in_thread(self.find_blocking, id)

    def find_blocking(self, id: MachineId) -> tuple[lxc_command.Running, netns.Watch | None] | None:
        """`find`, for a pass over many in one thread."""
        running = lxc_command.find(self._lxcpath, id.key)
        return (running, _links_of(running)) if running is not None else None

    def track(self, id: MachineId, running: lxc_command.Running, links: netns.Watch | None) -> Machine:
        """Watch a machine from now on."""
        machine = self.machines[id] = Machine(id, running, links)
        machine.init = pidfd.Watch(running.init_fd, lambda: self._init_ended(machine))
        machine.monitor = pidfd.Watch(running.monitor_fd, lambda: self._monitor_ended(machine))
        self.by_namespace[machine.namespace] = machine
        return machine

    def tell(self, machine: Machine, kind: MachineEventKind) -> None:
        """Tell the subscriber of an event."""
        self._subscriber(MachineEvent(machine.id, kind))

    async def close(self) -> None:
        """Stop watching; the machines go on."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for machine in self.machines.values():
            machine.close()
        self.machines.clear()
        self.by_namespace.clear()

    def _forget_namespace(self, machine: Machine) -> None:
        """Its number may be another machine's by now."""
        if self.by_namespace.get(machine.namespace) is machine:
            del self.by_namespace[machine.namespace]

    def _spawn(self, work: asyncio.Task[None]) -> None:
        self._tasks.add(work)
        work.add_done_callback(self._tasks.discard)

    def _init_ended(self, machine: Machine) -> None:
        if not pidfd.is_gone(machine.monitor.fd):
            self._spawn(asyncio.ensure_future(self._await_next(machine)))

    def _monitor_ended(self, machine: Machine) -> None:
        self._spawn(asyncio.ensure_future(self._finish(machine)))

    async def _await_next(self, machine: Machine) -> None:
        """Init has gone and the monitor has not (yet): either it is about to, or it comes up with another init."""
        pause = _LOOK_FIRST
        while not machine.gone.is_set() and machine.monitor.fd >= 0 and not pidfd.is_gone(machine.monitor.fd):
            found = await self.find(machine.id)
            if found is not None and machine.monitor.fd >= 0 and found[0].init_pid != machine.init_pid:
                self._rebooted(machine, *found)
                return
            if found is not None:
                _drop(*found)
            await asyncio.sleep(pause)
            pause = min(_LOOK_MOST, pause * 1.5)

    def _rebooted(self, machine: Machine, running: lxc_command.Running, links: netns.Watch | None) -> None:
        os.close(running.monitor_fd)
        machine.init.close()
        if machine.links is not None:
            machine.links.close()
        self._forget_namespace(machine)
        machine.init_pid, machine.links = running.init_pid, links
        machine.namespace = peer.pid_namespace(running.init_pid)
        self.by_namespace[machine.namespace] = machine
        machine.init = pidfd.Watch(running.init_fd, lambda: self._init_ended(machine))
        if machine.may_reboot:
            machine.status = InstanceStatus.RUNNING
            self.tell(machine, MachineEventKind.REBOOTED)
        else:
            machine.kill_init()

    async def _finish(self, machine: Machine) -> None:
        """The monitor has gone. Init, if it still lives, dies with it; then the machine has stopped."""
        while machine.init.fd >= 0 and not pidfd.is_gone(machine.init.fd):
            machine.kill_init()
            await asyncio.sleep(_LOOK_FIRST)
        machine.close()
        self._forget_namespace(machine)
        with contextlib.suppress(OSError):
            await in_thread(self._clean, machine.id)
        if self.machines.get(machine.id) is machine:
            del self.machines[machine.id]
        machine.status = InstanceStatus.STOPPED
        self.tell(machine, MachineEventKind.STOPPED)
        machine.gone.set()


def _links_of(running: lxc_command.Running) -> netns.Watch | None:
    """A watch on the interfaces; None, with a word in the log, if there cannot be one: the machine runs all the same."""
    try:
        return netns.Watch(running.init_pid)
    except OSError as error:
        log.warning("The interfaces of a machine cannot be watched", extra={"init": running.init_pid, "error": str(error)})
        return None


def _drop(running: lxc_command.Running, links: netns.Watch | None) -> None:
    os.close(running.init_fd)
    os.close(running.monitor_fd)
    if links is not None:
        links.close()


def halt_signal(pid: int) -> int | None:
    """The signal at which an init shuts down: systemd blocks SIGRTMIN+3, to take it by signalfd; others know SIGPWR. None when
    it shows neither."""
    sets = {"SigBlk:": 0, "SigCgt:": 0}
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status") as file:
        for line in file:
            name, _, value = line.partition("\t")
            if name in sets:
                sets[name] = int(value, 16)
    if sets["SigBlk:"] >> (_HALT_BY_SYSTEMD - 1) & 1:
        return _HALT_BY_SYSTEMD
    return signal.SIGPWR if (sets["SigBlk:"] | sets["SigCgt:"]) >> (signal.SIGPWR - 1) & 1 else None
