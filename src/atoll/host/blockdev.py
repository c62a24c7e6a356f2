"""Which disk a path's data is on, as the kernel numbers disks. Blocking, for microseconds."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_SYS = Path("/sys/dev/block")
_MOUNTS = Path("/proc/self/mountinfo")


def disk_of(path: Path, *, sys: Path = _SYS, mounts: Path = _MOUNTS) -> str | None:
    """`major:minor` of the whole disk under a block device or under the file system that a path is on; None where there is none
    (tmpfs, overlay, network). OSError if the path is not there."""
    number = _number_of(path)
    if os.major(number) == 0:  # the file system has a number of its own, as btrfs has
        number = _source_of(path.resolve(), mounts)
    name = f"{os.major(number)}:{os.minor(number)}"
    device = sys / name
    if os.major(number) == 0 or not device.exists():
        return None
    if (device / "partition").exists():
        return (device.resolve().parent / "dev").read_text(encoding="ascii").strip()
    return name


def _number_of(path: Path) -> int:
    found = os.stat(path)
    return found.st_rdev if stat.S_ISBLK(found.st_mode) else found.st_dev


def _source_of(path: Path, mounts: Path) -> int:
    """The number of the block device that is mounted over a path; 0 if what is mounted there is none."""
    best, source = "", ""
    for line in mounts.read_text().splitlines():
        left, _, right = line.partition(" - ")
        point = left.split(" ")[4].replace(r"\040", " ")
        if path.is_relative_to(point) and len(point) >= len(best):
            best, source = point, right.split(" ")[1]
    try:
        found = os.stat(source) if source.startswith("/dev/") else None
    except OSError:
        return 0
    return found.st_rdev if found is not None and stat.S_ISBLK(found.st_mode) else 0
