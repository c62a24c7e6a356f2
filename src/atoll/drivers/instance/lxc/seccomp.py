"""A machine's system call policy, in the second format of liblxc's policy files."""

from __future__ import annotations

from atoll.domain.errors import BadRequest
from atoll.drivers.instance.contract import SyscallPolicy
from atoll.host import seccomp

DEFAULT = """reject_force_umount
[all]
kexec_load errno 38
kexec_file_load errno 38
open_by_handle_at errno 38
init_module errno 38
finit_module errno 38
delete_module errno 38
"""
"""What every machine is denied unless `security.syscalls.deny_default` is off."""


def render(policy: SyscallPolicy, architecture: str) -> str:
    """The text of the policy file for a machine of that architecture (the kernel's name); empty when nothing is denied.
    BadRequest for lines that are none."""
    if policy.raw:
        return policy.raw
    for line in (*policy.allow, *policy.deny):
        if not line.isprintable():
            raise BadRequest("A line of a system call policy has a line break or a NUL in it")
    if policy.allow:
        return "\n".join(["2", "allowlist", "[all]", *policy.allow]) + "\n"
    text = DEFAULT if policy.deny_default else ""
    if policy.deny:
        text += "\n".join(["[all]", *(with_action(line) for line in policy.deny)]) + "\n"
    if policy.deny_compat and architecture == "x86_64":
        text += "\n".join(["[all]", *(f"{name} errno 38" for name in _compat_only())]) + "\n"
    return f"2\ndenylist\n{text}" if text else ""


def with_action(line: str) -> str:
    """A line that names a call alone denies it with EPERM: liblxc's own default would kill the process."""
    return line if " " in line else f"{line} errno 1"


def _compat_only() -> list[str]:
    """What 32-bit programs call and 64-bit ones cannot. liblxc applies a rule to every architecture that has the call, so those
    that both have stay; without these no 32-bit program gets past its loader."""
    native = set(seccomp.syscalls("x86_64"))
    return [name for name in seccomp.syscalls("x86") if name not in native]
