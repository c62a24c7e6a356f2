"""A command in a machine, as the contract has it."""

from __future__ import annotations

import contextlib
import os

from atoll.domain.errors import Conflict, HostError
from atoll.drivers.instance.contract import ExecSpec
from atoll.drivers.instance.lxc import config
from atoll.drivers.instance.lxc.monitor import Machine
from atoll.host import cgroup, pidfd
from atoll.host.threads import in_thread
from atoll.host.zygote import GuestProcess, Zygote

_PROCESSES = 3
"""So many are in a machine for a moment when a command starts: the worker of the zygote, and the two that liblxc forks."""


class Command:
    """A command that runs inside a machine."""

    def __init__(self, process: GuestProcess, *, terminal: bool) -> None:
        self._process = process
        self._terminal = terminal

    @property
    def pid(self) -> int:
        """Its process id on the host."""
        return self._process.pid

    async def wait(self) -> int:
        """Its exit status."""
        return await self._process.wait()

    def signal(self, number: int) -> None:
        """Send a signal to it and, on a terminal, to the foreground group there if it is another's."""
        if self._terminal and (group := _foreground(self.pid)) not in (0, self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, number)
        self._process.signal(number)


async def start(zygote: Zygote, machine: Machine, spec: ExecSpec, *, lxcpath: str, host: config.Host) -> Command:
    """Start one by liblxc's attach, in a worker of the zygote. Conflict for a machine that ends meanwhile."""
    payload = host.payload(machine.id.key)
    unified, groups = host.layout.folders(payload)
    with machine.hold_init() as (init_pid, init_fd):
        arguments = {
            "unified": unified,
            "groups": groups,
            "lxcpath": lxcpath,
            "name": machine.id.key,
            "init": init_pid,
            "command": list(spec.command),
            "environment": {"container": "lxc", **spec.environment},
            "user": spec.user,
            "group": spec.group,
            "cwd": spec.cwd,
        }
        try:
            process = await zygote.execute(arguments, (spec.stdin, spec.stdout, spec.stderr, init_fd))
        except HostError as error:
            if _is_ending(init_pid, init_fd):
                raise Conflict("Instance is not running") from error
            if not await in_thread(cgroup.has_room, host.layout, payload, _PROCESSES):
                raise HostError("The instance has as many processes as limits.processes allows") from error
            raise
    return Command(process, terminal=spec.terminal)


def _is_ending(init_pid: int, init_fd: int) -> bool:
    """Whether an init has ended, or is about to: it lets go of its namespaces before it waits for the others to die."""
    return not os.path.exists(f"/proc/{init_pid}/ns/net") or pidfd.is_gone(init_fd)


def _foreground(pid: int) -> int:
    """The foreground process group of a process's terminal; 0 when it has none or is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return max(0, int(file.read().rpartition(b")")[2].split()[5]))
    except (OSError, ValueError, IndexError):
        return 0
