"""Plugging into running machines: interfaces by netlink, mounts in a worker of the zygote."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path

from atoll.domain.errors import Conflict, HostError
from atoll.drivers.instance.contract import MachineId, MountSpec, NicSpec, Plugged
from atoll.drivers.instance.lxc import launching
from atoll.drivers.instance.lxc.monitor import Machine
from atoll.host import netlink, netns, pidfd, veth
from atoll.host.mount import Entry, parse_mountinfo
from atoll.host.threads import in_thread
from atoll.host.zygote import Zygote


def attach_nic(init_pid: int, init_fd: int, nic: NicSpec) -> None:
    """A new pair, its inner end in the machine's namespace from the first moment. Blocks, and is given its
    init as it was on the event loop: pid and pidfd of one process.
    """
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


async def attach_mount(zygote: Zygote, machine: Machine, mount: MountSpec) -> None:
    """In a worker; the target is looked up below the guest's root only."""
    with machine.hold_init() as (init_pid, init_fd):
        arguments = {
            "source": mount.source,
            "target": mount.target,
            "options": list(mount.options),
            "is_file": mount.is_file,
            "foreign": await in_thread(_has_own_users, init_pid, init_fd),
        }
        await zygote.call("mount", arguments, [init_fd])


async def detach_mount(zygote: Zygote, machine: Machine, mount: MountSpec) -> None:
    """In a worker; nothing wrong if nothing is mounted there."""
    with machine.hold_init() as (init_pid, init_fd):
        foreign = await in_thread(_has_own_users, init_pid, init_fd)
        await zygote.call("unmount", {"source": mount.source, "target": mount.target, "foreign": foreign}, [init_fd])


def lacking(looks: Sequence[tuple[MachineId, int, Plugged]]) -> dict[MachineId, frozenset[str]]:
    """What each machine, by the pid of its init, lacks of what it should have. Blocks.

    What is mounted in a machine is known by where it is on its file system, which the mounts of host and guest both tell: no path
    of the guest is looked up, as a file system that is served in there could keep one waiting.
    """
    host = {entry.target: entry for entry in _mounts("self")}
    found = {}
    for id, pid, plugged in looks:
        there = {(entry.device, entry.root) for entry in _mounts(pid)} if plugged.mounts else set()
        names = {mount.device for mount in plugged.mounts if _place(Path(mount.source), host) not in there}
        names |= {nic.device for nic in plugged.nics if not netlink.exists(nic.host_name)}
        if names:
            found[id] = frozenset(names)
    return found


def surplus(looks: Sequence[tuple[MachineId, netns.Watch, Plugged, Path]]) -> dict[MachineId, list[NicSpec]]:
    """What each machine, by a watch of its links, has of its launch and should not have any more. Blocks.

    What an interface is called is not enough: another machine may have one of that name by now. Both ends have to name each
    other.
    """
    outside = netlink.links()
    found = {}
    for id, links, plugged, run_dir in looks:
        kept = {nic.host_name for nic in plugged.nics}
        there = [outside[name] for name in launching.launched_nics(run_dir) if name in outside and name not in kept]
        ends = {(link.index, link.peer) for link in links.links().values()} if there else set()
        if back := [NicSpec("", link.name, "", link.hwaddr) for link in there if (link.peer, link.index) in ends]:
            found[id] = back
    return found


def _place(source: Path, host: Mapping[Path, Entry]) -> tuple[str, str]:
    """The device number of the file system that a path is on, and its path on that."""
    over = next(folder for folder in (source, *source.parents) if folder in host)
    return host[over].device, posixpath.normpath(posixpath.join(host[over].root, source.relative_to(over)))


def _mounts(pid: int | str) -> list[Entry]:
    try:
        return parse_mountinfo(os.fsdecode(Path(f"/proc/{pid}/mountinfo").read_bytes()))
    except OSError:
        return []  # it has ended


def _has_own_users(init_pid: int, init_fd: int) -> bool:
    """Whether a machine is in another user namespace than the daemon."""
    namespace = _open_namespace(init_pid, init_fd, "user")
    try:
        return not os.path.samestat(os.fstat(namespace), os.stat("/proc/self/ns/user"))
    finally:
        os.close(namespace)


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
