"""What decisions need to know of the host: its memory, its CPUs, its architecture, the ids it lends."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

from atoll.domain.idmap import IdRange

DEFAULT_BASE, DEFAULT_COUNT = 1_000_000, 1_000_000_000
"""Lent where /etc/subuid speaks of nobody: far from the ids of people and of other programs."""

LEAST_COUNT = 65536

_OWNERS = ("root", "0", "lxd", "_lxd")


def memory_total() -> int:
    """Bytes of memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def booted_at() -> float:
    """When the host was started, in seconds since the epoch."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def cpus() -> int:
    """CPUs that are online."""
    return os.cpu_count() or 1


def unprivileged_only() -> bool:
    """Whether the daemon was started with ATOLL_UNPRIVILEGED_ONLY (or LXD's name of it) set."""
    said = os.environ.get("ATOLL_UNPRIVILEGED_ONLY") or os.environ.get("LXD_UNPRIVILEGED_ONLY") or ""
    return said.lower() in ("1", "true", "yes", "on")


def architecture() -> str:
    """The kernel's name of the architecture, which is LXD's too."""
    return platform.machine()


def lent_ids(subuid: Path = Path("/etc/subuid"), subgid: Path = Path("/etc/subgid")) -> IdRange | None:
    """The ids that unprivileged instances may have: the largest range that /etc/subuid and /etc/subgid both give to root.

    Where neither file gives root anything, the default range, unless it would overlap somebody else's. None if there is none.
    """
    users, groups = _ranges(subuid), _ranges(subgid)
    ours = [
        IdRange(0, max(first, other), min(first + count, other + other_count) - max(first, other))
        for owner, first, count in users
        for other_owner, other, other_count in groups
        if owner in _OWNERS and other_owner in _OWNERS
    ]
    usable = [entry for entry in ours if entry.count >= LEAST_COUNT]
    if usable:
        return max(usable, key=lambda entry: entry.count)
    end = DEFAULT_BASE + DEFAULT_COUNT
    if any(first < end and first + count > DEFAULT_BASE for _, first, count in [*users, *groups]):
        return None
    return IdRange(0, DEFAULT_BASE, DEFAULT_COUNT)


def _ranges(path: Path) -> list[tuple[str, int, int]]:
    """(owner, first id, count) of a file's lines; malformed ones and a missing file give none."""
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        owner, _, rest = line.partition(":")
        first, _, count = rest.partition(":")
        if first.isdecimal() and count.isdecimal():
            found.append((owner, int(first), int(count)))
    return found
