"""Ways into control groups without the wait that moving a process costs. Used by the zygote, so it imports next to nothing.

Writing a process's number to `cgroup.procs` waits until every CPU has seen that no process may fork now: an RCU grace period,
5 to 20 ms, more than all else that it takes to run a short command. Two ways have no need of it: a process can be born in a group
of v2, and a process of one thread can take itself into groups of v1.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

from atoll.host import syscalls

_LEAF = ".lxc"
"""Where liblxc puts commands, below a machine's group of v2: that may have no processes itself once the guest has divided it."""


def fork(group: str) -> int:
    """As os.fork, for a process of one thread; the child is born where commands are in a machine's group of v2. OSError if it
    cannot be."""
    leaf = f"{group}/{_LEAF}"
    with contextlib.suppress(FileExistsError):
        os.mkdir(leaf, 0o755)
    folder = os.open(leaf, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return syscalls.fork_into(folder)
    finally:
        os.close(folder)


def enter(groups: Iterable[str]) -> None:
    """Go into groups of v1. OSError at the first that cannot be entered."""
    for group in groups:
        tasks = os.open(f"{group}/tasks", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(tasks, b"0")  # whoever writes it
        finally:
            os.close(tasks)
