"""Which machine a process is in: by the pid namespaces around it, with its control groups for a second witness."""

from __future__ import annotations

from atoll.drivers.instance.contract import Resident
from atoll.drivers.instance.lxc.config import Host
from atoll.drivers.instance.lxc.monitor import Machine, Watcher
from atoll.host import cgroup, guest_pty, peer
from atoll.host.peer import Peer
from atoll.host.threads import in_thread


async def find(process: Peer, watcher: Watcher, host: Host) -> Resident | None:
    """As the contract's `find_by_process`."""
    groups = await in_thread(cgroup.read_text, f"/proc/{process.pid}/cgroup")
    machine = _around(process, watcher)
    if machine is None or not is_below(groups, host.payload(machine.id.key)):
        return None
    init = machine.init_pid
    users = await in_thread(cgroup.read_text, f"/proc/{init}/uid_map")
    if not machine.has_init or machine.init_pid != init:
        return None
    try:
        return Resident(machine.id, guest_pty.host_id(users, 0))
    except KeyError:
        return None  # its root is nobody on this host


def _around(process: Peer, watcher: Watcher) -> Machine | None:
    """The innermost machine whose pid namespace the process is in.

    The number of a namespace may be used again once it has ended. Here it cannot have been: those of the process are held
    while the machine's init is seen alive, so both are there at the same moment. And the process is seen alive last: all that
    was read under its number is about it.
    """
    with peer.pid_namespaces(process.pid) as numbers:
        machine = next((found for number in numbers if (found := watcher.by_namespace.get(number)) is not None), None)
        return machine if machine is not None and machine.has_init and process.is_alive else None


def is_below(groups: str, group: str) -> bool:
    """Whether /proc/PID/cgroup, in any hierarchy, names the group or one below it."""
    return any(f"/{group}/" in f"{line.rpartition(':')[2]}/" for line in groups.splitlines())
