"""What a disk of the host is: opened once, looked at through that descriptor, and pinned by it.

A path that is swapped afterwards, by whoever may write to one of its folders, changes nothing any more.
"""

from __future__ import annotations

import errno
import os
import stat
from enum import StrEnum
from pathlib import Path

from atoll.domain.errors import BadRequest, Forbidden, HostError
from atoll.host import pins, syscalls, threads
from atoll.host.pins import Manner

_CONFINED = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_MAGICLINKS
_KINDS = {stat.S_IFDIR: "folder", stat.S_IFBLK: "block", stat.S_IFREG: "file", stat.S_IFSOCK: "file", stat.S_IFCHR: "file"}


class SourceKind(StrEnum):
    """What a path of the host is, as far as mounting it goes. Sockets and character devices are files."""

    FOLDER = "folder"
    FILE = "file"
    BLOCK = "block"


async def pin(source: Path, place: Path, note: str, manner: Manner, *, allowed: tuple[Path, ...] | None) -> SourceKind | None:
    """Pin what `source` is now to `place`, with a note beside it; None if there is nothing. Of a block device, the file system
    that is on it."""
    descriptor = await threads.in_thread(_look_up, source, allowed)
    if descriptor is None:
        return None
    try:
        kind = _kind(source, os.fstat(descriptor).st_mode)
        filesystem = await pins.filesystem_of(descriptor, str(source)) if kind is SourceKind.BLOCK else ""
        await threads.in_thread(pins.make_place, place, note, is_file=kind is SourceKind.FILE)
        if filesystem:
            await threads.in_thread(pins.pin_device, descriptor, place, filesystem, manner)
        else:
            await threads.in_thread(pins.pin, descriptor, place, manner)
        return kind
    finally:
        os.close(descriptor)


def _look_up(source: Path, allowed: tuple[Path, ...] | None) -> int | None:
    """An O_PATH descriptor; None if there is nothing. Blocking: a file system of the network may keep one waiting."""
    try:
        return _open(source, allowed)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise HostError(f"Cannot open disk source {str(source)!r}: {error.strerror}") from error


def _open(source: Path, allowed: tuple[Path, ...] | None) -> int:
    """An O_PATH descriptor of the source. Where only some folders are allowed, no link may lead out of the one it lies in."""
    if allowed is None:
        return os.open(source, os.O_PATH | os.O_CLOEXEC)
    root = next((folder for folder in allowed if source.is_relative_to(folder)), None)
    if root is None:
        raise Forbidden(f"Disk source path {str(source)!r} is not allowed")
    parent = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        inside = str(source.relative_to(root))
        return syscalls.openat2(parent, inside, os.O_PATH, resolve=_CONFINED)
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.ELOOP):
            raise Forbidden(f"Disk source path {str(source)!r} leads out of {root}") from error
        raise
    finally:
        os.close(parent)


def _kind(source: Path, mode: int) -> SourceKind:
    kind = _KINDS.get(stat.S_IFMT(mode))
    if kind is None:
        raise BadRequest(f"Disk source {str(source)!r} is neither a folder, a file, a socket nor a device")
    return SourceKind(kind)
