"""Kernel calls that Python has no name for, each a function that raises OSError.

Numbers above 424 are the same on every architecture that Atoll runs on. glibc of Debian 12 wraps none of these, except
`renameat2`, `umount2`, `mount`, `setfsuid`, `capset`.
"""

from __future__ import annotations

import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

OPEN_TREE_CLONE = 1
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_IDMAP = 0x00100000

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

_OPEN_TREE, _MOVE_MOUNT, _OPENAT2, _MOUNT_SETATTR = 428, 429, 437, 442
_CAPABILITY_VERSION_3 = 0x20080522


class _MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


class _OpenHow(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("flags", "mode", "resolve")]


class _CapHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _CapData(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]


Capabilities = ctypes.Array[_CapData]
"""The capability sets of one thread, opaque: what `capabilities` gives and `set_capabilities` takes."""


def _check(result: int, *paths: str | bytes | os.PathLike[str] | None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        names = [os.fsdecode(path) for path in paths if path is not None]
        raise OSError(number, os.strerror(number), *names[:1])
    return result


def open_tree(path: str | os.PathLike[str], flags: int) -> int:
    """A file descriptor of a mount, or with OPEN_TREE_CLONE of a detached copy of it."""
    return _check(libc.syscall(_OPEN_TREE, AT_FDCWD, os.fsencode(path), flags | os.O_CLOEXEC), path)


def move_mount(tree: int, target: str | os.PathLike[str]) -> None:
    """Attach the detached mount `tree` at a path."""
    _check(libc.syscall(_MOVE_MOUNT, tree, b"", AT_FDCWD, os.fsencode(target), MOVE_MOUNT_F_EMPTY_PATH), target)


def mount_setattr(tree: int, *, attributes: int, namespace: int = 0, recursive: bool = False) -> None:
    """Set attributes (MOUNT_ATTR_*) of a mount; `namespace` is the user namespace's descriptor for MOUNT_ATTR_IDMAP."""
    attr = _MountAttr(attributes, 0, 0, namespace)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    _check(libc.syscall(_MOUNT_SETATTR, tree, b"", flags, ctypes.byref(attr), ctypes.sizeof(attr)))


def mount(source: str, target: str | os.PathLike[str], kind: str, flags: int, options: str) -> None:
    """mount(2)."""
    _check(libc.mount(os.fsencode(source), os.fsencode(target), kind.encode(), flags, os.fsencode(options)), target)


def umount2(target: str | os.PathLike[str], flags: int) -> None:
    """umount2(2)."""
    _check(libc.umount2(os.fsencode(target), flags), target)


def openat2(directory: int, path: str | os.PathLike[str], flags: int, mode: int, resolve: int) -> int:
    """openat2(2): a path below the directory descriptor, resolved under the RESOLVE_* rules."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    return _check(libc.syscall(_OPENAT2, directory, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how)), path)


def renameat2(source: str | os.PathLike[str], target: str | os.PathLike[str], flags: int) -> None:
    """Rename with RENAME_NOREPLACE or RENAME_EXCHANGE, atomically."""
    _check(libc.renameat2(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), flags), target)


def set_fs_ids(uid: int, gid: int) -> None:
    """The ids of the calling *thread* for file-system access. Leaving uid 0 drops its file capabilities (capabilities(7))."""
    libc.setfsgid(gid)
    libc.setfsuid(uid)
    # The calls report no error; asking for an impossible id changes nothing and returns the present one.
    if libc.setfsuid(-1) != uid or libc.setfsgid(-1) != gid:
        raise PermissionError(f"cannot take the file-system ids {uid}:{gid}")


def capabilities() -> Capabilities:
    """The capability sets of the calling thread."""
    data = (_CapData * 2)()
    _check(libc.capget(ctypes.byref(_CapHeader(_CAPABILITY_VERSION_3, 0)), data))
    return data


def set_capabilities(data: Capabilities) -> None:
    """Set the capability sets of the calling thread."""
    _check(libc.capset(ctypes.byref(_CapHeader(_CAPABILITY_VERSION_3, 0)), data))


def filesystem_magic(path: str | os.PathLike[str]) -> int:
    """`f_type` of statfs(2) for the file system that holds `path`."""
    buffer = (ctypes.c_long * 32)()
    _check(libc.statfs(os.fsencode(path), buffer), path)
    return int(buffer[0]) & 0xFFFFFFFF
