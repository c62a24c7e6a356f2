"""The content of a disk as one file in a folder of its own, `root.img`, which takes only the space of what was written to it.

The folder may come from a stranger, so the file is opened without following a link. All functions but `sync` block.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from atoll.domain.errors import BadRequest, HostError
from atoll.host import confined, file_copy, syscalls, threads

FILE = "root.img"
PIECE = 1 << 18

_ZEROS = bytes(PIECE)
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL
_MODE = 0o600


@dataclass(frozen=True, slots=True)
class Measure:
    """Bytes of a disk, and those of them that take space."""

    size: int
    used: int


def make(folder: Path, size: int) -> None:
    """A new disk of zeros."""
    with opened(folder, flags=_NEW) as image:
        os.ftruncate(image, size)


def put(source: Path, folder: Path) -> None:
    """A new disk with the content of a file."""
    with confined.directory(folder) as target, source.open("rb", buffering=0) as origin:
        file_copy.new_file(origin.fileno(), os.fstat(origin.fileno()), target, FILE, lambda: None)
    settle(folder)


def measure(folder: Path) -> Measure:
    """NotFound if there is none."""
    with opened(folder, flags=os.O_RDONLY) as image:
        found = os.fstat(image)
    return Measure(found.st_size, found.st_blocks * 512)


def is_alone(folder: Path) -> bool:
    """Whether the folder is there, with a disk and nothing else."""
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name, entry.is_file(follow_symlinks=False)) for entry, _ in zip(entries, range(2), strict=False)]
    except FileNotFoundError:
        return False
    return found == [(FILE, True)]


def resize(folder: Path, size: int) -> None:
    """Cut it off, or add zeros."""
    with opened(folder) as image:
        os.ftruncate(image, size)


def settle(folder: Path) -> None:
    """Make a file that came from elsewhere the host's own. BadRequest if the folder has no disk, or one that has other names."""
    with opened(folder) as image:
        if os.fstat(image).st_nlink != 1:
            raise BadRequest("The volume's disk is a file of several names")
        os.fchown(image, 0, 0)
        os.fchmod(image, _MODE)


async def sync(source: Path, target: Path) -> None:
    """Make the disk in the folder `target` like that in `source`: only what differs is written, so that the rest stays shared
    with snapshots where the file system shares. HostError if it cannot be copied."""
    try:
        await threads.finished(threads.waiting_thread(_update, source, target))
    except OSError as error:
        raise HostError(f"Cannot copy {source / FILE}: {error.strerror or error}") from error


def _update(source: Path, target: Path) -> None:
    with opened(source, flags=os.O_RDONLY) as origin, opened(target) as image:
        size, at = os.fstat(origin).st_size, 0
        for start, end in file_copy.extents(origin, size):
            clear(image, at, start)
            for position in range(start, end, PIECE):
                write(image, position, os.pread(origin, min(PIECE, end - position), position))
            at = end
        clear(image, at, size)
        os.ftruncate(image, size)
        found = os.fstat(origin)
        os.utime(image, ns=(found.st_atime_ns, found.st_mtime_ns))


def write(image: int, position: int, data: bytes) -> int:
    """Make that part of an open disk these bytes (at most PIECE); zeros leave or make a hole. Returns how many were written."""
    present = os.pread(image, len(data), position)
    if present.ljust(len(data), b"\0") == data:
        return 0
    if data == _ZEROS[: len(data)]:
        syscalls.punch_hole(image, position, len(data))
        return 0
    done = 0
    while done < len(data):
        done += os.pwrite(image, memoryview(data)[done:], position + done)
    return done


def clear(image: int, start: int, end: int) -> None:
    """Make a part of an open disk zeros, without space."""
    if any(True for _ in file_copy.extents(image, end, start)):
        syscalls.punch_hole(image, start, end - start)


@contextmanager
def opened(folder: Path, *, flags: int = os.O_RDWR) -> Iterator[int]:
    """A descriptor of the disk. NotFound if there is none, BadRequest if it is no plain file."""
    with confined.directory(folder) as base:
        descriptor = confined.open_beneath(base, FILE, flags | os.O_NONBLOCK | os.O_NOCTTY, _MODE if flags & os.O_CREAT else 0)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BadRequest("The volume's disk is no plain file")
        yield descriptor
    finally:
        os.close(descriptor)
