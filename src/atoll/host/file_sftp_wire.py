"""SFTP's packets (version 3): taken apart, and put together."""

from __future__ import annotations

import errno
import os
import stat
import struct
import time
from collections.abc import Iterator

MAX_PACKET = 256 * 1024

STATUS, HANDLE, DATA, NAME, ATTRIBUTES, EXTENDED_REPLY = 101, 102, 103, 104, 105, 201
OK, EOF, NO_SUCH_FILE, PERMISSION_DENIED, FAILURE, BAD_MESSAGE, UNSUPPORTED = 0, 1, 2, 3, 4, 5, 8
_STATUS_OF = {
    errno.ENOENT: NO_SUCH_FILE,
    errno.ENOTDIR: NO_SUCH_FILE,
    errno.EACCES: PERMISSION_DENIED,
    errno.EPERM: PERMISSION_DENIED,
    errno.EOPNOTSUPP: UNSUPPORTED,
}
_HAS_SIZE, _HAS_OWNER, _HAS_MODE, _HAS_TIMES, _HAS_EXTENDED = 0x01, 0x02, 0x04, 0x08, 0x80000000

Answer = tuple[int, bytes]
"""A packet's type, and what comes after its number."""


class BadMessage(Exception):
    """A packet that is shorter than what it says, or asks for what is not open."""


class Packet:
    """Reads a packet's fields, in order."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self) -> int:
        """A uint32."""
        return int.from_bytes(self._take(4), "big")

    def long(self) -> int:
        """A uint64."""
        return int.from_bytes(self._take(8), "big")

    def string(self) -> bytes:
        """Bytes with their length before them."""
        return self._take(self.number())

    def path(self) -> str:
        """A path; an empty one is the top, as servers whose users have a home take it."""
        return os.fsdecode(self.string()) or "."

    def _take(self, size: int) -> bytes:
        if self._at + size > len(self._data):
            raise BadMessage
        self._at += size
        return self._data[self._at - size : self._at]


class Attributes:
    """Those that a packet sets; None for each that it does not speak of."""

    def __init__(self, packet: Packet) -> None:
        flags = packet.number()
        self.size = packet.long() if flags & _HAS_SIZE else None
        self.owner = (_id(packet.number()), _id(packet.number())) if flags & _HAS_OWNER else None
        self.mode = packet.number() if flags & _HAS_MODE else None
        self.times = (packet.number(), packet.number()) if flags & _HAS_TIMES else None
        if flags & _HAS_EXTENDED:
            for _ in range(min(packet.number(), 64)):
                packet.string()
                packet.string()


def offset(number: int) -> int:
    """A place in a file. EINVAL for one that no file has."""
    if number >> 63:
        raise OSError(errno.EINVAL, "Not an offset in a file")
    return number


def string(data: bytes) -> bytes:
    """Bytes with their length before them."""
    return struct.pack(">I", len(data)) + data


def status(code: int, text: str = "") -> Answer:
    """How a request went."""
    return STATUS, struct.pack(">I", code) + string(text.encode(errors="replace")) + string(b"en")


DONE = status(OK)


def failure(error: OSError) -> Answer:
    """What the system said."""
    return status(_STATUS_OF.get(error.errno or 0, FAILURE), error.strerror or str(error))


def handle(name: bytes) -> Answer:
    """What a file or directory was opened as."""
    return HANDLE, string(name)


def data(block: bytes) -> Answer:
    """Content of a file."""
    return DATA, string(block)


def attributes(found: os.stat_result) -> Answer:
    """Those of one file."""
    return ATTRIBUTES, _attributes(found)


def path(found: str) -> Answer:
    """One name, without attributes."""
    encoded = os.fsencode(found)
    return NAME, struct.pack(">I", 1) + string(encoded) * 2 + struct.pack(">I", 0)


def names(found: list[tuple[str, os.stat_result]]) -> Answer:
    """Names in a directory."""
    return NAME, struct.pack(">I", len(found)) + b"".join(_named(found))


def filesystem(found: os.statvfs_result) -> Answer:
    """Figures of a file system, for OpenSSH's extension."""
    read_only, no_set_id = found.f_flag & os.ST_RDONLY, found.f_flag & os.ST_NOSUID
    return EXTENDED_REPLY, struct.pack(
        ">11Q",
        found.f_bsize,
        found.f_frsize,
        found.f_blocks,
        found.f_bfree,
        found.f_bavail,
        found.f_files,
        found.f_ffree,
        found.f_favail,
        found.f_fsid & 0xFFFFFFFFFFFFFFFF,
        read_only | no_set_id,
        found.f_namemax,
    )


def _id(number: int) -> int:
    """A user's or group's id; the greatest number leaves it as it is."""
    return -1 if number == 0xFFFFFFFF else number


def _attributes(found: os.stat_result) -> bytes:
    times = (min(max(int(moment), 0), 0xFFFFFFFF) for moment in (found.st_atime, found.st_mtime))
    flags = _HAS_SIZE | _HAS_OWNER | _HAS_MODE | _HAS_TIMES
    return struct.pack(">IQ5I", flags, found.st_size, found.st_uid, found.st_gid, found.st_mode, *times)


def _named(found: list[tuple[str, os.stat_result]]) -> Iterator[bytes]:
    for name, attributes in found:
        encoded = os.fsencode(name)
        yield string(encoded) + string(_line(attributes) + encoded) + _attributes(attributes)


def _line(found: os.stat_result) -> bytes:
    """As `ls -l` has it; in UTC, since the time zone's file would be the guest's."""
    when = time.strftime("%b %d  %Y", time.gmtime(found.st_mtime))
    text = f"{stat.filemode(found.st_mode)} {found.st_nlink:>4} {found.st_uid:<8} {found.st_gid:<8} {found.st_size:>8} {when} "
    return text.encode()
