"""btrfs subvolumes by ioctl: made, copied, removed and listed without starting a program.

Vocabulary
    subvolume   a tree of a btrfs file system with inodes of its own; in a directory it looks like a directory (inode 256)
    snapshot    a subvolume that began as the content of another; subvolumes below the other are *not* in it: where they were,
                it has a placeholder, an empty directory with inode 2
    id          number of a subvolume, never used twice in a file system

All functions block and raise OSError. A snapshot is on disk for good when the call returns (the kernel commits it).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from atoll.host import syscalls

MAGIC = 0x9123683E
ROOT_INODE, PLACEHOLDER_INODE = 256, 2
LARGEST = (1 << 64) - 1
LONGEST_NAME = 255
ROOT_TREE = 1
_ROOT_ITEM, _ROOT_REF = 132, 156
_READONLY = 1 << 1
_HANDLE = 0x4D  # a handle of a subvolume and an inode, without parent
_ARGS_BYTES = 4096
_VOL_ARGS = struct.Struct("=qQQ32s4040s")
_LOOKUP = struct.Struct("=QQ4080s")
_SEARCH_KEY = struct.Struct("=7Q4I4Q")
_SEARCH_HEADER = struct.Struct("=QQQII")
_ROOT_REF_ITEM = struct.Struct("=QQH")
_INFO_BYTES, _INFO_UUIDS = 504, struct.Struct("=16s16s16s")
_INFO_UUIDS_AT = 8 + 256 + 4 * 8


def request(direction: str, number: int, size: int) -> int:
    """The number of an ioctl of btrfs: direction "" (neither), "r", "w" or "rw", as the kernel's headers write it."""
    bits = {"": 0, "w": 1, "r": 2, "rw": 3}[direction]
    return bits << 30 | size << 16 | 0x94 << 8 | number


_TREE_SEARCH = request("rw", 17, _ARGS_BYTES)
_INO_LOOKUP = request("rw", 18, _ARGS_BYTES)
_SNAP_CREATE_V2 = request("w", 23, _ARGS_BYTES)
_SUBVOL_CREATE_V2 = request("w", 24, _ARGS_BYTES)
_SUBVOL_GETFLAGS = request("r", 25, 8)
_SUBVOL_SETFLAGS = request("w", 26, 8)
_SET_RECEIVED_SUBVOL = request("rw", 37, 200)
_GET_SUBVOL_INFO = request("r", 60, _INFO_BYTES)
_SNAP_DESTROY_V2 = request("w", 63, _ARGS_BYTES)


def call(descriptor: int, number: int, arguments: bytes) -> bytes:
    """An ioctl with a structure; returns what the kernel made of it.

    Python keeps its lock, and with it the whole process, during an ioctl with a buffer of up to 1024 bytes. Some of these
    wait for the disk, hence a longer one; the kernel reads as much of it as the number says.
    """
    buffer = bytearray(arguments.ljust(_ARGS_BYTES, b"\0"))
    fcntl.ioctl(descriptor, number, buffer, True)
    return bytes(buffer)


@dataclass(frozen=True, slots=True)
class Child:
    """A subvolume directly below another: its id, the inode of the directory that it is in, and its name there."""

    id: int
    folder: int
    name: str


@dataclass(frozen=True, slots=True)
class Identity:
    """By what send streams name a subvolume; `received` is the sender's, on what came in by `receive`."""

    own: uuid.UUID
    received: uuid.UUID


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor of a directory, while the block runs."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def opened_inode(filesystem: int, subvolume: int, inode: int = ROOT_INODE) -> Iterator[int]:
    """A descriptor of a directory by its subvolume's id and its inode, wherever they are now: no path is looked up, however
    long it is and whoever changes it meanwhile. FileNotFoundError if there is no such directory."""
    handle = struct.pack("=QQI", inode, subvolume, 0)
    try:
        descriptor = syscalls.open_by_handle(filesystem, _HANDLE, handle, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno in (errno.ESTALE, errno.ENOTDIR):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from error
        raise
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def is_subvolume(path: Path) -> bool:
    """Whether a subvolume is there; a link to one is none."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    return found.st_ino == ROOT_INODE and syscalls.filesystem_magic(path) == MAGIC


def create(folder: int, name: str) -> None:
    """A new, empty subvolume in a directory, with the mode that the umask leaves of 0777."""
    call(folder, _SUBVOL_CREATE_V2, _vol_args(name=name))


def snapshot(source: int, folder: int, name: str, *, readonly: bool = False) -> None:
    """A snapshot of the subvolume that `source` is a descriptor of, in the directory `folder`."""
    call(folder, _SNAP_CREATE_V2, _vol_args(name=name, source=source, flags=_READONLY if readonly else 0))


def destroy(folder: int, name: str) -> None:
    """Remove a subvolume in a directory, which must hold no other (ENOTEMPTY). It is out of sight when this returns; the kernel
    frees its space behind. Nothing wrong if it is not there."""
    try:
        call(folder, _SNAP_DESTROY_V2, _vol_args(name=name))
    except FileNotFoundError:
        return


def set_readonly(subvolume: int, *, readonly: bool) -> None:
    """Let nobody, or everybody who may, change what is in the subvolume that the descriptor is of."""
    flags = _flags(subvolume)
    wanted = flags | _READONLY if readonly else flags & ~_READONLY
    if wanted != flags:
        call(subvolume, _SUBVOL_SETFLAGS, struct.pack("=Q", wanted))


def is_readonly(subvolume: int) -> bool:
    """Whether the subvolume that the descriptor is of, or is in, is read-only."""
    return bool(_flags(subvolume) & _READONLY)


def id_of(descriptor: int) -> int:
    """The id of the subvolume that the descriptor is in."""
    tree, _, _ = _LOOKUP.unpack(call(descriptor, _INO_LOOKUP, _LOOKUP.pack(0, ROOT_INODE, b"")))
    return int(tree)


def identity(subvolume: int) -> Identity:
    """The subvolume's uuids; `received` is zero for one that was made here."""
    answer = call(subvolume, _GET_SUBVOL_INFO, b"")
    own, _parent, received = _INFO_UUIDS.unpack_from(answer, _INFO_UUIDS_AT)
    return Identity(uuid.UUID(bytes=own), uuid.UUID(bytes=received))


def forget_origin(subvolume: int) -> None:
    """Make a writable subvolume that came in by `receive` one like any other: no change of its origin can be received upon it."""
    call(subvolume, _SET_RECEIVED_SUBVOL, b"")


def exists(filesystem: int, subvolume: int) -> bool:
    """Whether there is a subvolume with that id, or one that the kernel still frees."""
    return any(True for _ in search(filesystem, ROOT_TREE, subvolume, _ROOT_ITEM))


def children(filesystem: int, subvolume: int) -> list[Child]:
    """The subvolumes directly below one. The cost is that of one call if there are none."""
    found = []
    for _, child, item in search(filesystem, ROOT_TREE, subvolume, _ROOT_REF):
        folder, _sequence, length = _ROOT_REF_ITEM.unpack_from(item)
        name = item[_ROOT_REF_ITEM.size : _ROOT_REF_ITEM.size + length]
        found.append(Child(child, folder, os.fsdecode(name)))
    return found


def folder_path(filesystem: int, subvolume: int, folder: int) -> str:
    """The path of a directory by its inode, from its subvolume's root: "" or "a/b/". ENAMETOOLONG beyond 4080 bytes."""
    if folder == ROOT_INODE:
        return ""
    answer = call(filesystem, _INO_LOOKUP, _LOOKUP.pack(subvolume, folder, b""))
    return os.fsdecode(_LOOKUP.unpack(answer)[2].partition(b"\0")[0])


def search(filesystem: int, tree: int, objectid: int, kind: int, offset: int | None = None) -> Iterator[tuple[int, int, bytes]]:
    """(objectid, offset, item) of the items of a kind that a tree has for an object, at one offset or at all."""
    start, last = (0, LARGEST) if offset is None else (offset, offset)
    while True:
        key = _SEARCH_KEY.pack(tree, objectid, objectid, start, last, 0, LARGEST, kind, kind, 64, 0, 0, 0, 0, 0)
        answer = call(filesystem, _TREE_SEARCH, key)
        (count,) = struct.unpack_from("=I", answer, 64)
        position = _SEARCH_KEY.size
        for _ in range(count):
            _transaction, found, start, _kind, length = _SEARCH_HEADER.unpack_from(answer, position)
            position += _SEARCH_HEADER.size
            yield found, start, answer[position : position + length]
            position += length
        if count == 0 or start == last:
            return
        start += 1


def _flags(subvolume: int) -> int:
    (flags,) = struct.unpack_from("=Q", call(subvolume, _SUBVOL_GETFLAGS, b""))
    return int(flags)


def _vol_args(*, name: str, source: int = 0, flags: int = 0) -> bytes:
    encoded = os.fsencode(name)
    if len(encoded) > LONGEST_NAME:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    return _VOL_ARGS.pack(source, 0, flags, b"", encoded)
