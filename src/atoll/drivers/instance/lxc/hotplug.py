"""Plugging into running machines: interfaces by netlink, mounts in a worker of the zygote."""

from __future__ import annotations

import os

from atoll.domain.errors import Conflict, HostError
from atoll.drivers.instance.contract import MountSpec, NicSpec
from atoll.drivers.instance.lxc.monitor import Machine
from atoll.host import cgroup, guest_pty, netns, pidfd, veth
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
    init_pid, init_fd = machine.init_pid, machine.init.fd
    arguments = {
        "source": mount.source,
        "target": mount.target,
        "fstype": mount.fstype,
        "options": list(mount.options),
        "is_file": mount.is_file,
        "owner": await in_thread(_guest_root, init_pid),
    }
    if not mount.idmapped:
        await zygote.call("mount", arguments, [init_fd])
        return
    userns = await in_thread(_open_namespace, init_pid, init_fd, "user")
    try:
        await zygote.call("mount", arguments, [init_fd, userns])
    finally:
        os.close(userns)


async def detach_mount(zygote: Zygote, machine: Machine, mount: MountSpec) -> None:
    """In a worker; nothing wrong if nothing is mounted there."""
    await zygote.call("unmount", {"target": mount.target}, [machine.init.fd])


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
