"""Kernel calls that Python 3.11 has no function for. Imports nothing of Atoll: the zygote uses it too.

Each raises OSError with the errno of the call.
"""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
CLONE_NEWUSER = 0x10000000

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

OPEN_TREE_CLONE = 0x1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_IDMAP = 0x100000
MNT_DETACH = 2
FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING, FSCONFIG_CMD_CREATE = 0, 1, 6
DEVPTS_MAGIC = 0x1CD1

_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _OPENAT2, _MOUNT_SETATTR = 428, 429, 430, 431, 432, 437, 442

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


class _MountAttr(ctypes.Structure):
    _fields_ = [
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    ]


class _StatFs(ctypes.Structure):
    _fields_ = [("f_type", ctypes.c_long), ("rest", ctypes.c_char * 248)]


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _call(what: str, number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    passed = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return _check(_libc.syscall(ctypes.c_long(number), *passed), what)


def openat2(directory: int, path: str, flags: int, *, resolve: int, mode: int = 0) -> int:
    """open() below a directory descriptor, with limits on what the path may resolve to; always close-on-exec."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    result = _libc.syscall(
        ctypes.c_long(_OPENAT2), ctypes.c_long(directory), os.fsencode(path), ctypes.byref(how), ctypes.c_long(ctypes.sizeof(how))
    )
    return _check(result, f"openat2 {path}")


def setns(fd: int, kinds: int) -> None:
    """Move this thread into the namespaces that a namespace descriptor or a pidfd stands for."""
    _check(_libc.setns(fd, kinds), "setns")


def unshare(kinds: int) -> None:
    """Give this thread new namespaces."""
    _check(_libc.unshare(kinds), "unshare")


def open_tree(path: str, *, recursive: bool) -> int:
    """A detached copy of the mount at a host path."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    return _call(f"open_tree {path}", _OPEN_TREE, -100, os.fsencode(path), flags)


def mount_setattr(mount: int, attributes: int, *, userns: int = 0, recursive: bool = False) -> None:
    """Set attributes on a detached mount; with MOUNT_ATTR_IDMAP, `userns` is the descriptor of the map's user namespace."""
    wanted = _MountAttr(attributes, 0, 0, userns)
    result = _libc.syscall(
        ctypes.c_long(_MOUNT_SETATTR),
        ctypes.c_long(mount),
        b"",
        ctypes.c_long(AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)),
        ctypes.byref(wanted),
        ctypes.c_long(ctypes.sizeof(wanted)),
    )
    _check(result, "mount_setattr")


def move_mount(mount: int, target: int) -> None:
    """Attach a detached mount on what an O_PATH descriptor stands for."""
    _call("move_mount", _MOVE_MOUNT, mount, b"", target, b"", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)


def new_mount(fstype: str, source: str, options: list[str]) -> int:
    """A detached mount of a new file system."""
    context = _call(f"fsopen {fstype}", _FSOPEN, fstype.encode(), 1)
    try:
        _call("fsconfig source", _FSCONFIG, context, FSCONFIG_SET_STRING, b"source", os.fsencode(source), 0)
        for option in options:
            key, separator, value = option.partition("=")
            if separator:
                _call(f"fsconfig {key}", _FSCONFIG, context, FSCONFIG_SET_STRING, key.encode(), value.encode(), 0)
            else:
                _call(f"fsconfig {key}", _FSCONFIG, context, FSCONFIG_SET_FLAG, key.encode(), None, 0)
        _call(f"fsconfig {fstype}", _FSCONFIG, context, FSCONFIG_CMD_CREATE, None, None, 0)
        return _call("fsmount", _FSMOUNT, context, 1, 0)
    finally:
        os.close(context)


def unmount(path: str) -> None:
    """Detach what is mounted at a path."""
    _check(_libc.umount2(os.fsencode(path), MNT_DETACH), f"umount {path}")


def set_file_ids(user: int, group: int) -> None:
    """Access and create files as that user and group, on this thread; other than root, that is without capabilities."""
    _libc.setfsgid(group)
    _libc.setfsuid(user)


def filesystem_type(fd: int) -> int:
    """The magic number of the file system that a descriptor is on."""
    buffer = _StatFs()
    _check(_libc.fstatfs(fd, ctypes.byref(buffer)), "fstatfs")
    return int(buffer.f_type)


def set_process_name(name: bytes) -> None:
    """What `ps` shows as this process's name; at most 15 bytes."""
    _check(_libc.prctl(_PR_SET_NAME, name, 0, 0, 0), "prctl")


def become_subreaper() -> None:
    """Orphans among this process's descendants become its children."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")
