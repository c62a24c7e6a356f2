"""Around `lxc-start`: what it finds on disk, and what it said."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

from atoll.drivers.instance.contract import Launch
from atoll.drivers.instance.lxc import config, console, limits, seccomp, targets
from atoll.host import cgroup

_HOME = "/var/lib/atoll"
_LOG_TAIL = 2000
_NICS = "nics"


def look_at_host(lxcpath: str) -> config.Host:
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


def write_files(launch: Launch, host: config.Host) -> Path:
    """Write the generated files, and set the old logs aside. The configuration's path."""
    policy = launch.run_dir / "seccomp"
    rules = seccomp.render(launch.syscalls, launch.architecture)
    launch = replace(launch, mounts=targets.followed(launch.rootfs, launch.mounts))
    text = config.render(launch, host, policy if rules else None)
    _write(policy, rules)
    path = launch.run_dir / "lxc.conf"
    _write(path, text)
    _write(launch.run_dir / _NICS, "".join(f"{nic.host_name}\n" for nic in launch.nics))
    for name in ("lxc.log", console.LOG):
        old = launch.log_dir / name
        if old.exists():
            old.replace(old.with_suffix(".log.old"))
    console.clear(launch.log_dir)
    return path


def launched_nics(run_dir: Path) -> list[str]:
    """What the interfaces of a machine's launch are called on the host: those that it gets each time its guest reboots."""
    try:
        return (run_dir / _NICS).read_text().split()
    except FileNotFoundError:
        return []  # its launch was an older daemon's


def tail(launch: Launch, said: bytes) -> str:
    """The end of a machine's log; of what lxc-start said, if it logged nothing."""
    try:
        text = (launch.log_dir / "lxc.log").read_text(errors="replace")[-_LOG_TAIL:].strip()
    except OSError:
        text = ""
    return text or said.decode(errors="replace")[-_LOG_TAIL:].strip() or "it ended at once"


def _write(path: Path, text: str) -> None:
    """Write a generated file that root alone may read, in one step."""
    fresh = path.with_name(f".{path.name}.new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "w") as file:
        file.write(text)
    fresh.replace(path)
