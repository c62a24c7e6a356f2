"""The configuration of a machine as liblxc reads it.

`Writer` is the only way a line gets in: it refuses a key that is not one, and a value that could end its line. No file of the
distribution is included: what `common.conf` and `userns.conf` bring is written here, without their hooks (the one that lxcfs
installs sleeps for half a second in every stop). Every interface, mount and id has been decided by the service.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from atoll.domain.errors import BadRequest
from atoll.domain.idmap import IdMap
from atoll.drivers.instance.contract import CONSOLE_LOG_BYTES, Launch, MountSpec, NicSpec
from atoll.drivers.instance.lxc import console, limits, raw
from atoll.host import cgroup

_KEY = re.compile(r"lxc\.[A-Za-z0-9_.-]+")
_FORBIDDEN = re.compile(r"[\r\n\0]")
_INTERFACE = re.compile(r"[^/\s:\0]{1,15}")
_SYSCTL = re.compile(r"[A-Za-z0-9_./-]+")
_ENVIRONMENT = re.compile(r"[^=\0\r\n]+")
_ESCAPES = {ord(" "): r"\040", ord("\t"): r"\011", ord("\\"): r"\134"}

DEVICES = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
    "c 10:200 rwm",
    "c 10:229 rwm",
]
"""What a machine may use: any mknod, null, zero, full, random, urandom, tty, console, ptmx, pts, net/tun, fuse."""

DROPPED = "mac_admin mac_override sys_time sys_module sys_rawio"
"""Capabilities that a privileged machine does without; an unprivileged one has none outside its user namespace."""

_HOST_TREES = (
    "/proc/sys/fs/binfmt_misc",
    "/sys/firmware/efi/efivars",
    "/sys/fs/fuse/connections",
    "/sys/fs/pstore",
    "/sys/kernel/config",
    "/sys/kernel/debug",
    "/sys/kernel/security",
    "/sys/kernel/tracing",
)
"""Trees that a guest's init would else try, and fail, to mount; the host's are there, with the host's permissions on them."""

_HOST_DEVICES = ("/dev/fuse", "/dev/net/tun")


@dataclass(frozen=True, slots=True)
class Host:
    """What the configuration has to know of the host."""

    layout: cgroup.Layout
    group_root: str
    apparmor: bool = False
    nested: bool = False  # the daemon runs in a user namespace itself: no device groups
    absent: frozenset[str] = frozenset()  # files of limits that the kernel has not
    lxcfs: Path = Path("/var/lib/lxcfs")
    root: Path = Path("/")

    def payload(self, key: str) -> str:
        """The control group of a machine's processes."""
        return f"{self.group_root}/payload/{key}"

    def monitor(self, key: str) -> str:
        """The control group of a machine's monitor."""
        return f"{self.group_root}/monitor/{key}"


class Writer:
    """Collects `key = value` lines. BadRequest for anything that would not stay one line of one key."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def set(self, key: str, value: object) -> None:
        """Add a line."""
        text = str(value)
        if not _KEY.fullmatch(key):
            raise BadRequest(f"{key!r} is not a configuration key")
        if _FORBIDDEN.search(text):
            raise BadRequest(f"The value of {key} has a line break or a NUL in it")
        self._lines.append(f"{key} = {text}")

    def raw(self, text: str) -> None:
        """Append text that an administrator wrote in liblxc's own language, as it is. BadRequest as of `raw.check`."""
        raw.check(text)
        self._lines.extend(text.split("\n"))  # and at nothing else that Python takes for the end of a line

    def text(self) -> str:
        """All of it."""
        return "\n".join(self._lines) + "\n"


def render(launch: Launch, host: Host, seccomp: Path | None) -> str:
    """The configuration of a machine; `seccomp` is where its system call policy is, if it has one. BadRequest for a value that
    cannot be."""
    writer = Writer()
    _base(writer, launch, host)
    _identity(writer, launch)
    _groups(writer, launch, host)
    _confinement(writer, launch, host, seccomp)
    _system_mounts(writer, launch, host)
    for mount in launch.mounts:
        _mount(writer, mount)
    _nics(writer, launch.nics)
    _environment(writer, launch)
    writer.raw(launch.raw)
    return writer.text()


def _base(writer: Writer, launch: Launch, host: Host) -> None:
    key = launch.id.key
    writer.set("lxc.log.file", launch.log_dir / "lxc.log")
    writer.set("lxc.log.level", "warn")
    writer.set("lxc.console.logfile", launch.log_dir / console.LOG)
    writer.set("lxc.console.size", CONSOLE_LOG_BYTES)
    writer.set("lxc.console.rotate", 1)
    writer.set("lxc.pty.max", 1024)
    writer.set("lxc.tty.max", 0)
    writer.set("lxc.init.cmd", "/sbin/init")
    writer.set("lxc.cgroup.dir.container", host.payload(key))
    writer.set("lxc.cgroup.dir.monitor", host.monitor(key))
    writer.set("lxc.cgroup.dir.monitor.pivot", f"{host.group_root}/pivot")


def _identity(writer: Writer, launch: Launch) -> None:
    writer.set("lxc.uts.name", launch.hostname)
    writer.set("lxc.arch", launch.architecture)
    writer.set("lxc.rootfs.path", f"dir:{launch.rootfs}")
    if launch.idmap is None:
        return
    if launch.rootfs_idmap:
        writer.set("lxc.rootfs.options", "idmap=container")
    for line in idmap_lines(launch.idmap):
        writer.set("lxc.idmap", line)


def idmap_lines(idmap: IdMap) -> list[str]:
    """The values of `lxc.idmap` for a map."""
    lines = []
    for entry in idmap.ranges:
        kinds = ("u" if entry.users else "") + ("g" if entry.groups else "")
        lines += [f"{kind} {entry.inside} {entry.outside} {entry.count}" for kind in kinds]
    return lines


def _groups(writer: Writer, launch: Launch, host: Host) -> None:
    version = host.layout.version("devices")
    if not host.nested:
        prefix = "lxc.cgroup.devices" if version == 1 else "lxc.cgroup2.devices"
        writer.set(f"{prefix}.deny", "a")
        for rule in DEVICES:
            writer.set(f"{prefix}.allow", rule)
    for setting in limits.settings(launch.limits, host.layout):
        if setting.file in host.absent:
            continue
        prefix = "lxc.cgroup" if host.layout.version(setting.controller) == 1 else "lxc.cgroup2"
        writer.set(f"{prefix}.{setting.file}", setting.value)
    for name, value in launch.limits.rlimits.items():
        writer.set(f"lxc.prlimit.{name}", value)


def _confinement(writer: Writer, launch: Launch, host: Host, seccomp: Path | None) -> None:
    if seccomp is not None:
        writer.set("lxc.seccomp.profile", seccomp)
    writer.set("lxc.seccomp.allow_nesting", 1)
    if launch.idmap is None:
        writer.set("lxc.cap.drop", DROPPED)
    if host.apparmor:
        writer.set("lxc.apparmor.profile", "generated")
        writer.set("lxc.apparmor.allow_nesting", int(launch.nesting))
        for line in filter(None, map(str.strip, launch.apparmor.split("\n"))):
            writer.set("lxc.apparmor.raw", line)


def _system_mounts(writer: Writer, launch: Launch, host: Host) -> None:
    """What every system container finds mounted."""
    mode = "mixed" if launch.idmap is None else "rw"
    writer.set("lxc.mount.auto", f"proc:{mode} sys:{mode} cgroup:rw:force")
    writer.set("lxc.autodev", 1)
    _entry(writer, "mqueue", "dev/mqueue", "mqueue", ("rw", "relatime", "create=dir", "optional"))
    for path in _HOST_DEVICES:
        if (host.root / path[1:]).exists():
            _entry(writer, path, path[1:], "none", ("bind", "create=file", "optional"))
    for path in _HOST_TREES:
        if (host.root / path[1:]).is_dir():
            _entry(writer, path, path[1:], "none", ("rbind", "create=dir", "optional"))
    if launch.nesting:
        _entry(writer, "proc", "dev/.lxc/proc", "proc", ("create=dir", "optional"))
        _entry(writer, "sys", "dev/.lxc/sys", "sysfs", ("create=dir", "optional"))
    _lxcfs(writer, host.lxcfs)


def _lxcfs(writer: Writer, lxcfs: Path) -> None:
    """The files that show a machine its own limits, where lxcfs runs."""
    try:
        names = sorted(os.listdir(lxcfs / "proc"))
    except OSError:
        return
    for name in names:
        _entry(writer, str(lxcfs / "proc" / name), f"proc/{name}", "none", ("bind", "optional"))
    cpus = lxcfs / "sys/devices/system/cpu"
    if cpus.is_dir():
        _entry(writer, str(cpus), "sys/devices/system/cpu", "none", ("bind", "optional"))


def _mount(writer: Writer, mount: MountSpec) -> None:
    target = mount.target.strip("/")
    if not target or ".." in target.split("/"):
        raise BadRequest(f"Device {mount.device}: {mount.target!r} is not a place to mount at")
    create = "create=file" if mount.is_file else "create=dir"
    _entry(writer, mount.source, target, "none", (*mount.options, create))


def _entry(writer: Writer, source: str, target: str, fstype: str, options: Sequence[str]) -> None:
    words = (source, target, fstype, ",".join(options))
    if not all(words):
        raise BadRequest(f"A mount at {target!r} has an empty part")
    writer.set("lxc.mount.entry", " ".join(word.translate(_ESCAPES) for word in words) + " 0 0")


def _nics(writer: Writer, nics: Sequence[NicSpec]) -> None:
    if not nics:
        writer.set("lxc.net.0.type", "empty")
    for number, nic in enumerate(nics):
        for name in filter(None, (nic.host_name, nic.guest_name, nic.bridge)):
            if not _INTERFACE.fullmatch(name):
                raise BadRequest(f"Device {nic.device}: {name!r} is not an interface name")
        prefix = f"lxc.net.{number}"
        writer.set(f"{prefix}.type", "veth")
        writer.set(f"{prefix}.flags", "up")
        writer.set(f"{prefix}.veth.pair", nic.host_name)
        writer.set(f"{prefix}.name", nic.guest_name)
        writer.set(f"{prefix}.hwaddr", nic.hwaddr)
        if nic.bridge:
            writer.set(f"{prefix}.link", nic.bridge)
        if nic.mtu:
            writer.set(f"{prefix}.mtu", nic.mtu)


def _environment(writer: Writer, launch: Launch) -> None:
    for name, value in launch.environment.items():
        if not _ENVIRONMENT.fullmatch(name):
            raise BadRequest(f"{name!r} is not the name of an environment variable")
        writer.set("lxc.environment", f"{name}={value}")
    for name, value in launch.sysctls.items():
        if not _SYSCTL.fullmatch(name):
            raise BadRequest(f"{name!r} is not a kernel setting")
        writer.set(f"lxc.sysctl.{name.replace('/', '.')}", value)
