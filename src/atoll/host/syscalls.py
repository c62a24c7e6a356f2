"""Kernel calls that Python 3.11 has no name for, each a function that raises OSError.

Imports little: the zygote, which holds next to nothing, uses it too. Numbers above 424 are the same on every
architecture that Atoll runs on; glibc of Debian 12 has no function for them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
CLONE_NEWUSER = 0x10000000

OPEN_TREE_CLONE = 0x1
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_NOSYMFOLLOW = 0x200000
MOUNT_ATTR_IDMAP = 0x100000
MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 17, 1 << 18, 1 << 19, 1 << 20
MNT_DETACH = 0x2
UMOUNT_NOFOLLOW = 0x8

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

DEVPTS_MAGIC = 0x1CD1

_SYNC_FILE_RANGE_WRITE = 2
_FALLOC_FL_KEEP_SIZE, _FALLOC_FL_PUNCH_HOLE = 1, 2
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6
_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _OPENAT2, _MOUNT_SETATTR = 428, 429, 430, 431, 432, 437, 442
_QUOTACTL_FD = 443
_MOUNT_ATTR_ATIME = 0x70
_CAPABILITY_VERSION_3 = 0x20080522

_CLONE3 = 435
_CLONE_INTO_CGROUP = 1 << 33

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_holding = ctypes.PyDLL(None, use_errno=True)  # whose calls keep the interpreter's lock
_holding.syscall.restype = ctypes.c_long

Path = str | bytes | os.PathLike[str]


class _MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


class _OpenHow(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("flags", "mode", "resolve")]


class _CloneArgs(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls", "set_tid", "set_tid_size",
            "cgroup",
        )
    ]  # fmt: skip


class _CapHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _CapData(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]


Capabilities = ctypes.Array[_CapData]
"""The capability sets of one thread, opaque: what `capabilities` gives and `set_capabilities` takes."""


def _check(result: int, subject: Path | None = None) -> int:
    """OSError, about `subject` where one is named, for a result below zero."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), *(() if subject is None else (os.fsdecode(subject),)))
    return result


def _call(number: int, *arguments: int | bytes | ctypes.Structure | None, subject: Path | None = None) -> int:
    """syscall(2). Each number is passed as a long: the kernel reads whole registers."""
    passed = [
        ctypes.c_long(value) if isinstance(value, int) else ctypes.byref(value) if isinstance(value, ctypes.Structure) else value
        for value in arguments
    ]
    return _check(_libc.syscall(ctypes.c_long(number), *passed), subject)


# --- files -------------------------------------------------------------------------------------------------------------


def openat2(directory: int, path: Path, flags: int, *, resolve: int, mode: int = 0) -> int:
    """A descriptor, close-on-exec, of a path below the directory descriptor, resolved under the RESOLVE_* rules."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    return _call(_OPENAT2, directory, os.fsencode(path), how, ctypes.sizeof(how), subject=path)


def open_by_handle(filesystem: int, kind: int, handle: bytes, flags: int) -> int:
    """A descriptor, close-on-exec, of what a file handle stands for in the file system that `filesystem` is a descriptor in.
    ESTALE if it is gone."""
    packed = struct.pack("=Ii", len(handle), kind) + handle
    return _check(_libc.open_by_handle_at(filesystem, packed, flags | os.O_CLOEXEC))


def renameat2(
    source: Path, target: Path, flags: int, *, source_directory: int = AT_FDCWD, target_directory: int = AT_FDCWD
) -> None:
    """Rename with RENAME_NOREPLACE or RENAME_EXCHANGE, atomically."""
    _check(_libc.renameat2(source_directory, os.fsencode(source), target_directory, os.fsencode(target), flags), source)


def syncfs(descriptor: int) -> None:
    """All of the file system that the descriptor is on is on disk."""
    _check(_libc.syncfs(descriptor))


def start_writeback(descriptor: int) -> None:
    """Begin to write out what is dirty of a file, without waiting: from then on a write by a mapping shows in its times again."""
    _check(_libc.sync_file_range(descriptor, ctypes.c_int64(0), ctypes.c_int64(0), ctypes.c_uint(_SYNC_FILE_RANGE_WRITE)))


def punch_hole(descriptor: int, start: int, length: int) -> None:
    """Make a part of a file zeros that take no space; its size stays."""
    mode = _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE
    _check(_libc.fallocate(descriptor, mode, ctypes.c_int64(start), ctypes.c_int64(length)))


def quotactl(filesystem: int, command: int, subject: int, data: bytearray) -> None:
    """quotactl_fd(2) for the file system that a descriptor is on; what the kernel answers is written into `data`."""
    buffer = (ctypes.c_char * len(data)).from_buffer(data)
    _call(_QUOTACTL_FD, filesystem, command, subject, ctypes.addressof(buffer))


def filesystem_magic(place: Path | int) -> int:
    """`f_type` of statfs(2) for the file system that holds a path or descriptor."""
    buffer = (ctypes.c_long * 32)()
    if isinstance(place, int):
        _check(_libc.fstatfs(place, buffer))
    else:
        _check(_libc.statfs(os.fsencode(place), buffer), place)
    return int(buffer[0]) & 0xFFFFFFFF


# --- mounts ------------------------------------------------------------------------------------------------------------


def mount(source: str, target: Path, kind: str, flags: int, options: str) -> None:
    """mount(2)."""
    _check(_libc.mount(os.fsencode(source), os.fsencode(target), kind.encode(), flags, os.fsencode(options)), target)


def umount(target: Path, flags: int) -> None:
    """umount2(2): MNT_DETACH, UMOUNT_NOFOLLOW."""
    _check(_libc.umount2(os.fsencode(target), flags), target)


def open_tree(path: Path, *, recursive: bool = False) -> int:
    """A descriptor of a detached copy of the mount at a path; `recursive`: with the mounts below it."""
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    return _call(_OPEN_TREE, AT_FDCWD, os.fsencode(path), flags, subject=path)


def new_mount(kind: str, source: str, options: list[str]) -> int:
    """A descriptor of a detached mount of a new file system; options are `key` or `key=value`, those of that file system. The
    OSError says what the kernel told of the reason."""
    context = _call(_FSOPEN, kind.encode(), _FSOPEN_CLOEXEC, subject=kind)
    try:
        _call(_FSCONFIG, context, _FSCONFIG_SET_STRING, b"source", os.fsencode(source), 0, subject=source)
        for option in options:
            key, separator, value = option.partition("=")
            what, given = (_FSCONFIG_SET_STRING, os.fsencode(value)) if separator else (_FSCONFIG_SET_FLAG, None)
            _call(_FSCONFIG, context, what, os.fsencode(key), given, 0, subject=option)
        _call(_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0, subject=source)
        return _call(_FSMOUNT, context, _FSMOUNT_CLOEXEC, 0, subject=source)
    except OSError as error:
        raise OSError(error.errno, "; ".join([error.strerror or "", *_told(context)]), error.filename) from error
    finally:
        os.close(context)


def _told(context: int) -> list[str]:
    """What the kernel has to say of a mount that it refused, without the letters that it puts before each line."""
    lines = []
    try:
        while line := os.read(context, 4096):
            lines.append(os.fsdecode(line).strip()[2:])
    except OSError:  # no more
        pass
    return lines


def mount_setattr(tree: Path | int, attributes: int, *, propagation: int = 0, userns: int = 0, recursive: bool = False) -> None:
    """Set MOUNT_ATTR_* of a mount, and one of MS_SHARED and the like; with MOUNT_ATTR_IDMAP, `userns` is the descriptor of the
    map's user namespace."""
    clear = _MOUNT_ATTR_ATIME if attributes & _MOUNT_ATTR_ATIME else 0  # the kernel wants the old choice to be taken back
    wanted = _MountAttr(attributes, clear, propagation, userns)
    flags = AT_RECURSIVE if recursive else 0
    if isinstance(tree, int):
        _call(_MOUNT_SETATTR, tree, b"", flags | AT_EMPTY_PATH, wanted, ctypes.sizeof(wanted))
    else:
        _call(_MOUNT_SETATTR, AT_FDCWD, os.fsencode(tree), flags, wanted, ctypes.sizeof(wanted), subject=tree)


def move_mount(tree: int, target: Path | int) -> None:
    """Attach a detached mount at a path, or on what an O_PATH descriptor stands for."""
    if isinstance(target, int):
        _call(_MOVE_MOUNT, tree, b"", target, b"", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)
    else:
        _call(_MOVE_MOUNT, tree, b"", AT_FDCWD, os.fsencode(target), MOVE_MOUNT_F_EMPTY_PATH, subject=target)


# --- threads and processes ---------------------------------------------------------------------------------------------


def setns(descriptor: int, kinds: int) -> None:
    """Move the calling thread into the namespaces that a namespace's descriptor or a pidfd stands for."""
    _check(_libc.setns(descriptor, kinds))


def unshare(kinds: int) -> None:
    """Give the calling thread namespaces of its own."""
    _check(_libc.unshare(kinds))


def fork_into(group: int) -> int:
    """As os.fork; the child is born in the control group of v2 that the descriptor is of. For a process of one thread: the C
    library, which has no function for this, is told of nothing, so that no other thread may hold a lock of its."""
    arguments = _CloneArgs(flags=_CLONE_INTO_CGROUP, exit_signal=signal.SIGCHLD, cgroup=group)
    ctypes.pythonapi.PyOS_BeforeFork()
    child: int = _holding.syscall(ctypes.c_long(_CLONE3), ctypes.byref(arguments), ctypes.c_long(ctypes.sizeof(arguments)))
    if child == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    return _check(child)


def set_fs_ids(uid: int, gid: int) -> None:
    """The ids of the calling *thread* for file-system access. Leaving uid 0 drops its file capabilities (capabilities(7))."""
    _libc.setfsgid(gid)
    _libc.setfsuid(uid)
    # The calls report no error; asking for an impossible id changes nothing and returns the present one.
    if _libc.setfsuid(-1) != uid or _libc.setfsgid(-1) != gid:
        raise PermissionError(f"cannot take the file-system ids {uid}:{gid}")


def capabilities() -> Capabilities:
    """The capability sets of the calling thread."""
    data = (_CapData * 2)()
    _check(_libc.capget(ctypes.byref(_CapHeader(_CAPABILITY_VERSION_3, 0)), data))
    return data


def set_capabilities(data: Capabilities) -> None:
    """Set the capability sets of the calling thread."""
    _check(_libc.capset(ctypes.byref(_CapHeader(_CAPABILITY_VERSION_3, 0)), data))


def limit_capabilities(mask: int) -> None:
    """Let the calling thread keep those capabilities only (bit n is capability n), and pass none on."""
    data = capabilities()
    for index, half in enumerate(data):
        kept = (mask >> (32 * index)) & 0xFFFFFFFF
        half.permitted &= kept
        half.effective, half.inheritable = half.permitted, 0
    set_capabilities(data)


def hide_memory() -> None:
    """Nobody may trace this process or look at its descriptors and memory by /proc, but whoever has the host's capabilities."""
    _check(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))


def end_with_parent(number: int) -> None:
    """This process gets that signal when its parent ends. A change of ids takes it back: to be called after that."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0))


def set_process_name(name: bytes) -> None:
    """What `ps` shows as this process's name; at most 15 bytes."""
    _check(_libc.prctl(_PR_SET_NAME, name, 0, 0, 0))


def become_subreaper() -> None:
    """Orphans among this process's descendants become its children."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
