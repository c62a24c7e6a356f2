"""Files below a trusted folder, by names that are not trusted (security invariant I1).

Every path is resolved by the kernel from a descriptor of the folder, with openat2: it cannot leave the folder through `..`,
an absolute path or a link planted by a guest, not even when the guest swaps names meanwhile. All functions block.

`folder` is a trusted path; `name` a path relative to it. A name that leads out or through a symbolic link gives BadRequest,
a missing one NotFound.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from atoll.domain.errors import BadRequest, HostError, NotFound, TooLarge
from atoll.host import syscalls

MIB = 1 << 20
RESOLVE = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_MAGICLINKS | syscalls.RESOLVE_NO_SYMLINKS
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_DEEPEST = 64
_ATTEMPTS = 3
_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS = 0x80086601, 0x40086602
_FS_IMMUTABLE_OR_APPEND = 0x10 | 0x20


@contextmanager
def directory(folder: Path | int, name: str = ".") -> Iterator[int]:
    """A descriptor of the directory `name` below `folder` (a path or a descriptor), while the block runs."""
    base = os.open(folder, _DIRECTORY) if isinstance(folder, Path) else os.dup(folder)
    try:
        found = base if name == "." else open_beneath(base, name, _DIRECTORY)
        try:
            yield found
        finally:
            if found != base:
                os.close(found)
    finally:
        os.close(base)


def open_beneath(folder: int, name: str, flags: int, mode: int = 0) -> int:
    """A descriptor of `name` below the directory descriptor `folder`; no link is followed anywhere in it."""
    try:
        return syscalls.openat2(folder, name, flags, mode=mode, resolve=RESOLVE)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EXDEV):
            raise BadRequest(f"The path {name!r} leads through a symbolic link or out of its folder") from error
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise NotFound(f"There is no {name!r}") from error
        raise


def read(folder: Path | int, name: str, *, limit: int = MIB) -> bytes:
    """The content of a regular file of at most `limit` bytes. TooLarge if it has more, BadRequest if it is no regular file."""
    with directory(folder) as base:
        descriptor = open_beneath(base, name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise BadRequest(f"{name!r} is not a regular file")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                content = file.read(limit + 1)
        finally:
            os.close(descriptor)
    if len(content) > limit:
        raise TooLarge(f"{name!r} is larger than {limit} bytes")
    return content


def write(folder: Path | int, name: str, content: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Make or replace a file atomically: written aside, flushed (unless not `durable`), renamed.

    A link in its place is replaced, not followed. The folder is flushed too, so that the new name survives a loss of power.
    """
    parent, _, last = name.rpartition("/")
    if last in ("", ".", ".."):
        raise BadRequest(f"{name!r} is no name of a file")
    with directory(folder, parent or ".") as base:
        aside = f".{last[:200]}.{secrets.token_hex(6)}"
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=base)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, mode)
                file.write(content)
                file.flush()
                if durable:
                    os.fsync(descriptor)
            os.rename(aside, last, src_dir_fd=base, dst_dir_fd=base)
        except BaseException:
            with suppress(OSError):
                os.unlink(aside, dir_fd=base)
            raise
        if durable:
            os.fsync(base)


def remove_tree(path: Path) -> None:
    """Remove a file or a directory with all below it; nothing wrong if it is not there.

    No link is followed and no mount crossed: something mounted below is a HostError, with what lies outside it removed.
    Trees of any depth are fine (a guest may have made one of 100,000 levels), and so are immutable files.
    """
    with suppress(FileNotFoundError), directory(path.parent) as parent:
        _Remover(parent).remove(path.name)


def remove_entry(folder: int, name: str) -> None:
    """As `remove_tree`, for an entry of the directory that a descriptor is of."""
    _Remover(folder).remove(name)


class _Remover:
    """Removes entries of one directory. Subtrees deeper than _DEEPEST are first moved up to it, which bounds the descriptors."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._moved: list[str] = []

    def remove(self, name: str) -> None:
        self._remove(self._top, name, depth=0)
        while self._moved:
            self._remove(self._top, self._moved.pop(), depth=0)

    def _remove(self, parent: int, name: str, *, depth: int) -> None:
        try:
            _retry_mutable(parent, name, os.unlink)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EISDIR:
                raise
        if depth > _DEEPEST:
            self._move_up(parent, name)
            return
        for attempt in range(_ATTEMPTS):
            self._empty(parent, name, depth=depth)
            try:
                _retry_mutable(parent, name, os.rmdir)
                return
            except OSError as error:  # who had it open when it was taken out of sight may have put one more file there
                if error.errno != errno.ENOTEMPTY or attempt == _ATTEMPTS - 1:
                    raise

    def _empty(self, parent: int, name: str, *, depth: int) -> None:
        try:
            here = syscalls.openat2(parent, name, _DIRECTORY, resolve=RESOLVE | syscalls.RESOLVE_NO_XDEV)
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise HostError(f"Cannot remove {name!r}: something is mounted on it") from error
            raise
        try:
            for entry in os.listdir(here):
                self._remove(here, entry, depth=depth + 1)
        finally:
            os.close(here)

    def _move_up(self, parent: int, name: str) -> None:
        moved = f".deep-{secrets.token_hex(8)}"
        os.rename(name, moved, src_dir_fd=parent, dst_dir_fd=self._top)
        self._moved.append(moved)


def _retry_mutable(parent: int, name: str, remove: Callable[..., None]) -> None:
    """`os.unlink` or `os.rmdir`; where a flag of chattr(1) forbids it, take it off the entry and its directory first."""
    try:
        remove(name, dir_fd=parent)
    except PermissionError:
        changed = _make_mutable(parent)
        mode = os.lstat(name, dir_fd=parent).st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # nothing else has flags, and opening a device may do something
            entry = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
            try:
                changed = _make_mutable(entry) or changed
            finally:
                os.close(entry)
        if not changed:
            raise
        remove(name, dir_fd=parent)


def _make_mutable(descriptor: int) -> bool:
    """Clear the immutable and append-only flags; whether there was one."""
    try:
        (flags,) = struct.unpack("I", fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, b"\0\0\0\0"))
        if not flags & _FS_IMMUTABLE_OR_APPEND:
            return False
        fcntl.ioctl(descriptor, _FS_IOC_SETFLAGS, struct.pack("I", flags & ~_FS_IMMUTABLE_OR_APPEND))
    except OSError:
        return False
    return True
