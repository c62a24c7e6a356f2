"""File systems that count by project: real ones where the kernel has such quotas, else xfs with the counting done by the tests.

xfs keeps projects, hands them on and refuses to mix them on every kernel; only the counting and the limits may be left out of it.
"""

from __future__ import annotations

import errno
import functools
import os
import struct
import subprocess
import tempfile
from pathlib import Path

from atoll.host import process, project_quota

_FLAGS = {"ext4": ["-O", "quota,project", "-E", "quotatype=prjquota"], "xfs": []}
_LIMITS = struct.Struct("=8QI4x")


@functools.cache
def kinds() -> tuple[str, ...]:
    """What kinds of file systems this kernel counts on; found out by mounting one of each."""
    with tempfile.TemporaryDirectory() as folder:
        found = {kind: mount(kind, Path(folder)) for kind in _FLAGS} if os.geteuid() == 0 else {}
        mounted = {kind: path for kind, path in found.items() if path is not None}
        for path in mounted.values():
            subprocess.run(["umount", path], check=True)
    return tuple(mounted)


def mount(kind: str, folder: Path) -> Path | None:
    """A new file system with project quotas; None if the kernel has none for it. It goes with its mount."""
    image, target = folder / f"{kind}.image", folder / kind
    target.mkdir()
    with open(image, "wb") as file:
        file.truncate(400 << 20)
    made = subprocess.run([process.find(f"mkfs.{kind}"), "-q", *_FLAGS[kind], str(image)], capture_output=True)
    mounted = made.returncode == 0 and subprocess.run(
        ["mount", "-o", "loop,prjquota", image, target], capture_output=True
    ).returncode == 0  # fmt: skip
    image.unlink()
    return target if mounted else None


class Counting:
    """Answers quotactl(2) for one file system: keeps limits, which nothing enforces, and counts when it is asked."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.limits: dict[int, int] = {}
        self._asked: set[int] = set()

    def quotactl(self, filesystem: int, command: int, subject: int, data: bytearray) -> None:
        """As `syscalls.quotactl`."""
        if os.fstat(filesystem).st_dev != self._root.stat().st_dev:
            raise OSError(errno.ENOSYS, "no quotas")
        match command >> 8:
            case project_quota._STATE:
                struct.pack_into("=H", data, 2, project_quota._COUNTED | project_quota._ENFORCED)
            case project_quota._SET:
                self.limits[subject] = _LIMITS.unpack(data)[0]
                if not self.limits[subject]:
                    del self.limits[subject]
            case project_quota._GET:
                used, inodes = self._count(subject) if subject in self._asked else (0, 0)  # first of all it is looked for
                self._asked.add(subject)
                data[:] = _LIMITS.pack(self.limits.get(subject, 0), 0, used, 0, 0, inodes, 0, 0, 0)

    def _count(self, project: int) -> tuple[int, int]:
        """Bytes and inodes of directories and files."""
        facts = [path.lstat() for path in self._root.rglob("*") if _project(path) == project]
        return sum(found.st_blocks * 512 for found in facts), len(facts)


def _project(path: Path) -> int:
    """Of any directory or file; what cannot be opened counts as of none."""
    if path.is_symlink() or not (path.is_dir() or path.is_file()):
        return 0
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return project_quota._attributes(descriptor)[3]
    finally:
        os.close(descriptor)
