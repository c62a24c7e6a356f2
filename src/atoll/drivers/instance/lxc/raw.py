"""Which lines of `raw.lxc` are taken: keys that liblxc knows, without those that belong to the daemon."""

from __future__ import annotations

import re

from atoll.domain.errors import BadRequest

_KNOWN = """
    apparmor.allow_incomplete apparmor.allow_nesting apparmor.profile apparmor.raw arch autodev autodev.tmpfs.size
    cap.drop cap.keep cgroup.dir cgroup.dir.container cgroup.dir.container.inner cgroup.dir.monitor
    cgroup.dir.monitor.pivot cgroup.relative console.buffer.size console.logfile console.path console.rotate
    console.size environment execute.cmd group hook.autodev hook.clone hook.destroy hook.mount hook.post-stop
    hook.pre-mount hook.pre-start hook.start hook.start-host hook.stop hook.version idmap include init.cmd init.cwd
    init.gid init.groups init.uid keyring.session log.level monitor.signal.pdeath monitor.unshare mount.auto
    mount.entry mount.fstab namespace.clone namespace.keep no_new_privs proc.oom_score_adj pty.max rootfs.managed
    rootfs.mount rootfs.options rootfs.path sched.core seccomp.allow_nesting seccomp.notify.cookie
    seccomp.notify.proxy seccomp.profile selinux.context selinux.context.keyring signal.halt signal.reboot signal.stop
    start.auto start.delay start.order time.offset.boot time.offset.monotonic tty.dir tty.max uts.name
"""
_KEYS = frozenset(_KNOWN.split())
_FAMILIES = re.compile(r"(cgroup2?|sysctl|proc|namespace\.share)\.[a-z0-9_.-]+|net\.[0-9]+\.ipv[46]\.(address|gateway)")
_OURS = {
    "lxc.logfile": "lxc.log.file",
    "lxc.log.file": "lxc.log.file",
    "lxc.syslog": "lxc.log.syslog",
    "lxc.log.syslog": "lxc.log.syslog",
    "lxc.ephemeral": "lxc.ephemeral",
}


def check(text: str) -> None:
    """BadRequest, naming the line, unless each is empty, a comment, or sets a key that `raw.lxc` may set."""
    if "\0" in text:
        raise BadRequest("raw.lxc has a NUL in it")
    for line in text.split("\n"):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            _check_line(stripped)


def _check_line(line: str) -> None:
    key, equals, _ = line.partition("=")
    key = key.strip().lower()
    if not equals:
        raise BadRequest(f"Invalid raw.lxc line: {line[:80]!r}")
    if key in _OURS:
        raise BadRequest(f"Setting {_OURS[key]} is not allowed")
    if key.startswith("lxc.prlimit."):
        raise BadRequest(f"Process limits should be set via limits.kernel.{key.rpartition('.')[2]} and not {key} directly")
    name = key.removeprefix("lxc.")
    known = name != key and (name in _KEYS or _FAMILIES.fullmatch(name))
    if not known and name.startswith("net."):
        raise BadRequest("Only interface-specific ipv4/ipv6 lxc.net. keys are allowed")
    if not known:
        raise BadRequest(f"Unknown raw.lxc key: {key[:80]!r}")
