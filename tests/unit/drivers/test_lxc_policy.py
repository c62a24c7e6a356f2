"""What `raw.lxc` may say, and the system call policies that liblxc gets."""

from __future__ import annotations

import pytest

from atoll.domain.errors import BadRequest
from atoll.drivers.instance.contract import SyscallPolicy
from atoll.drivers.instance.lxc import raw, seccomp


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n# nothing\n  ",
        "lxc.apparmor.profile=unconfined",
        "lxc.cgroup.devices.allow = c 10:200 rwm\nlxc.cgroup2.memory.high = 1",
        "LXC.Environment = A=B",
        "lxc.net.0.ipv4.address = 10.0.0.2/24\nlxc.net.12.ipv6.gateway = auto",
        "lxc.hook.pre-start = /bin/true",
        "lxc.sysctl.net.ipv4.ip_forward = 1",
    ],
)
def test_raw_text_that_is_taken(text: str) -> None:
    raw.check(text)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a", "Invalid raw.lxc line: 'a'"),
        ("lxc.notaconfigkey=invalid", "Unknown raw.lxc key: 'lxc.notaconfigkey'"),
        ("environment = A", "Unknown raw.lxc key"),
        ("lxc.tty.max = 1\n lxc.log.file = /etc/passwd", "Setting lxc.log.file is not allowed"),
        ("lxc.logfile=/x", "Setting lxc.log.file is not allowed"),
        ("lxc.syslog = daemon", "Setting lxc.log.syslog is not allowed"),
        ("lxc.ephemeral = 1", "Setting lxc.ephemeral is not allowed"),
        ("lxc.prlimit.nofile = 1", r"via limits\.kernel\.nofile"),
        ("lxc.net.0.type = phys", "Only interface-specific"),
        ("lxc.net.0.ipv4.address.x = 1", "Only interface-specific"),
        ("lxc.environment = A\0", "NUL"),
    ],
)
def test_raw_text_that_is_not(text: str, fault: str) -> None:
    with pytest.raises(BadRequest, match=fault):
        raw.check(text)


def test_the_default_policy() -> None:
    text = seccomp.render(SyscallPolicy(), "x86_64")
    assert text.startswith("2\ndenylist\nreject_force_umount\n[all]\n")
    assert "kexec_load errno 38\n" in text


def test_what_is_denied_beside_it() -> None:
    text = seccomp.render(SyscallPolicy(deny=("mkdir", "ptrace kill")), "x86_64")
    assert text.endswith("[all]\nmkdir errno 1\nptrace kill\n")
    assert "kexec_load" in text
    assert seccomp.render(SyscallPolicy(deny_default=False, deny=("mkdir",)), "x86_64") == "2\ndenylist\n[all]\nmkdir errno 1\n"


def test_no_policy_where_nothing_is_denied() -> None:
    assert seccomp.render(SyscallPolicy(deny_default=False), "x86_64") == ""


def test_only_what_is_allowed() -> None:
    assert seccomp.render(SyscallPolicy(allow=("read", "write")), "x86_64") == "2\nallowlist\n[all]\nread\nwrite\n"


def test_raw_goes_before_all() -> None:
    assert seccomp.render(SyscallPolicy(raw="1\nx", deny=("mkdir",)), "x86_64") == "1\nx"


def test_calls_of_32_bit_programs() -> None:
    text = seccomp.render(SyscallPolicy(deny_default=False, deny_compat=True), "x86_64")
    lines = text.splitlines()
    assert {"socketcall errno 38", "mmap2 errno 38", "fstat64 errno 38"} <= set(lines)
    assert not any(line.startswith(("read ", "execve ", "mmap ")) for line in lines)
    assert seccomp.render(SyscallPolicy(deny_default=False, deny_compat=True), "aarch64") == ""


@pytest.mark.parametrize("line", ["mkdir\nreject_force_umount", "mkdir\0", "mkdir\r"])
def test_a_line_stays_one(line: str) -> None:
    with pytest.raises(BadRequest):
        seccomp.render(SyscallPolicy(deny=(line,)), "x86_64")
