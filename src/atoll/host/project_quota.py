"""Project quotas of ext4 and xfs: limits for directory trees, whoever owns the files. All functions block and raise OSError.

A project is a number that each inode can carry. A directory with the flag PROJINHERIT gives its own to all that is made in it;
the file system counts what the inodes of each project take. Two calls are refused with EXDEV: to rename or to link something
into a directory with the flag that has another project. A process in a user namespace cannot change a project.

ext4 does not limit a process that has CAP_SYS_RESOURCE on the host, xfs limits everyone. An overlay writes with the credentials
of its mounter, but without that capability: whoever writes through it is always limited.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import struct
from contextlib import suppress
from pathlib import Path

from atoll.domain.errors import HostError
from atoll.host import confined, disk, syscalls

FIRST, COUNT = 1 << 30, 1 << 30
"""The projects that are ours: a random one of these is hardly that of somebody else, and is looked up before it is taken."""

NONE = 0
"""The project of whatever was given none."""

_FSGETXATTR, _FSSETXATTR = 0x801C581F, 0x401C5820
_FSXATTR = struct.Struct("=5I8x")
_INHERIT = 0x200

_PROJECT = 2
_GET, _SET, _STATE = 0x800007, 0x800008, 0x5808
_DQBLK = struct.Struct("=8QI4x")
_BLOCK = 1024
_VALID_BLOCK_LIMITS = 1
_STATE_SIZE = 256
_COUNTED, _ENFORCED = 1 << 4, 1 << 5

_DEEPEST = 256
_ATTEMPTS = 16
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def reason_against(folder: Path) -> str | None:
    """Why trees in that folder cannot be limited, in one sentence; None if they can."""
    kind = disk.filesystem(folder)
    if kind not in ("ext4", "xfs"):
        return f"{kind} has no project quotas; ext4 and xfs have"
    with confined.directory(folder) as descriptor:
        if not _is_enforced(descriptor):
            return f"its {kind} file system is not mounted with project quotas (mount option prjquota)"
        if _attributes(descriptor)[0] & _INHERIT:
            return f"{folder} belongs to a project with a quota of its own"
    return None


def _is_enforced(filesystem: int) -> bool:
    state = bytearray(_STATE_SIZE)
    state[0] = 1  # the version of the answer
    try:
        syscalls.quotactl(filesystem, _command(_STATE), 0, state)
    except OSError:  # how kernels and file systems without quotas say so differs
        return False
    (flags,) = struct.unpack_from("=H", state, 2)
    return bool(flags & _COUNTED and flags & _ENFORCED)


def _command(number: int) -> int:
    return number << 8 | _PROJECT


# --- which tree is of which project ------------------------------------------------------------------------------------


def project_of(tree: Path) -> int:
    """The project that a directory gives to what is made in it; NONE if it gives none, or if nothing is there."""
    try:
        with confined.directory(tree) as descriptor:
            flags, _, _, project, _ = _attributes(descriptor)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EOPNOTSUPP, errno.ENOTTY):
            raise
        return NONE
    return project if flags & _INHERIT else NONE


def unused(folder: Path) -> int:
    """A project that the file system of that folder knows nothing of."""
    with confined.directory(folder) as filesystem:
        for _ in range(_ATTEMPTS):
            project = FIRST + secrets.randbelow(COUNT)
            limit, used, inodes = _figures(filesystem, project)
            if not (limit or used or inodes):
                return project
    raise HostError("All projects of the file system seem to be in use")


def assign(directory: Path, project: int) -> None:
    """Make all that will be made in an empty directory, and itself, of that project."""
    with confined.directory(directory) as descriptor:
        _assign(descriptor, project)


def assign_all(tree: Path, project: int) -> None:
    """As `assign`, with all that is there, which a guest may change meanwhile. Links, devices, fifos and sockets are counted with
    the project from the day that they are made anew: they cannot be opened."""
    with confined.directory(tree) as descriptor:
        _assign_below(descriptor, project, 0)


def _assign_below(directory: int, project: int, depth: int) -> None:
    """The directory first: what is made in it from then on, or comes from a directory that is done, is of the project already."""
    if depth > _DEEPEST:
        raise OSError(errno.ELOOP, f"Directories are nested deeper than {_DEEPEST}")
    _assign(directory, project)
    for name in os.listdir(directory):
        with suppress(FileNotFoundError, NotADirectoryError):  # it may go or be replaced meanwhile
            mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                _in_entry(directory, name, project, depth)
            elif stat.S_ISREG(mode):
                _assign_file(directory, name, project)


def _in_entry(directory: int, name: str, project: int, depth: int) -> None:
    resolve = confined.RESOLVE | syscalls.RESOLVE_NO_XDEV
    try:
        below = syscalls.openat2(directory, name, _DIRECTORY, resolve=resolve)
    except OSError as error:
        if error.errno != errno.EXDEV:  # something is mounted there
            raise
        return
    try:
        _assign_below(below, project, depth + 1)
    finally:
        os.close(below)


def _assign_file(directory: int, name: str, project: int) -> None:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    try:
        _assign(descriptor, project)
    finally:
        os.close(descriptor)


def _attributes(descriptor: int) -> tuple[int, int, int, int, int]:
    """Flags, size of extents, number of extents, project, size of shared extents."""
    found = fcntl.ioctl(descriptor, _FSGETXATTR, bytes(_FSXATTR.size))
    flags, extent_size, extents, project, shared = _FSXATTR.unpack(found)
    return flags, extent_size, extents, project, shared


def _assign(descriptor: int, project: int) -> None:
    flags, extent_size, extents, _, shared = _attributes(descriptor)
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        flags |= _INHERIT
    fcntl.ioctl(descriptor, _FSSETXATTR, _FSXATTR.pack(flags, extent_size, extents, project, shared))


# --- limits and usage --------------------------------------------------------------------------------------------------


def limit(folder: Path, project: int, size: int | None) -> None:
    """What the project may take at most on the file system of that folder, in bytes; None: anything."""
    blocks = -(-(size or 0) // _BLOCK)
    data = bytearray(_DQBLK.pack(blocks, 0, 0, 0, 0, 0, 0, 0, _VALID_BLOCK_LIMITS))
    with confined.directory(folder) as filesystem:
        syscalls.quotactl(filesystem, _command(_SET), project, data)


def limit_of(folder: Path, project: int) -> int | None:
    """The limit of the project, in bytes."""
    with confined.directory(folder) as filesystem:
        return _figures(filesystem, project)[0] or None


def usage(folder: Path, project: int) -> int:
    """Bytes that the project takes."""
    with confined.directory(folder) as filesystem:
        return _figures(filesystem, project)[1]


def _figures(filesystem: int, project: int) -> tuple[int, int, int]:
    """Limit and use in bytes, and inodes; zeros where the file system has no record."""
    data = bytearray(_DQBLK.size)
    try:
        syscalls.quotactl(filesystem, _command(_GET), project, data)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESRCH):
            raise
        return 0, 0, 0
    hard, _soft, used, _, _, inodes, *_ = _DQBLK.unpack(data)
    return hard * _BLOCK, used, inodes
