"""A stream of `btrfs send` as it goes by: what it says of itself, with our names for the subvolumes that it refers to.

A stream is a header and commands: (length of what follows, number, checksum), then attributes (type, length, value). Its first
command makes the subvolume, anew or as a snapshot of a parent; later ones may clone from subvolumes. All are named by uuids. The
kernel would look these up in the whole file system, where a stranger's uuids mean nothing: only those that are known are let
through, and become the uuids that the subvolumes have here.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator, Mapping
from enum import IntEnum
from functools import cache
from uuid import UUID

from atoll.domain.errors import BadRequest

LARGEST_COMMAND = 64 << 10
"""Bytes of a command that names subvolumes: it has two paths at most. Others are let through, however long, as they come."""

_MAGIC = b"btrfs-stream\0"
_HEADER = struct.Struct("<13sI")
_COMMAND = struct.Struct("<IHI")
_ATTRIBUTE = struct.Struct("<HH")
_LATEST_VERSION = 2
_POLYNOMIAL = 0x82F63B78  # CRC-32C


class _Number(IntEnum):
    SUBVOLUME = 1
    SNAPSHOT = 2
    CLONE = 16
    END = 21


_UUID, _CLONE_UUID = 1, 20
_NAMING = (_Number.SUBVOLUME, _Number.SNAPSHOT, _Number.CLONE)


class Beginning:
    """What is fed until the stream has said what it makes: `origin` is the subvolume's uuid at its sender, `parent` that of what
    it is a change of, None if of nothing; `rest` what was fed."""

    def __init__(self) -> None:
        self.origin: UUID | None = None
        self.parent: UUID | None = None
        self.rest = b""

    def feed(self, data: bytes) -> bool:
        """Whether that is known now. BadRequest for what is no such stream."""
        self.rest += data
        if len(self.rest) < _HEADER.size + _COMMAND.size:
            return False
        magic, version = _HEADER.unpack_from(self.rest)
        if magic != _MAGIC or not 1 <= version <= _LATEST_VERSION:
            raise BadRequest("What the other server sends is no stream of a subvolume")
        length, number, _ = _COMMAND.unpack_from(self.rest, _HEADER.size)
        start = _HEADER.size + _COMMAND.size
        if number not in (_Number.SUBVOLUME, _Number.SNAPSHOT) or length > LARGEST_COMMAND:
            raise BadRequest("The stream does not begin with a subvolume")
        if len(self.rest) < start + length:
            return False
        told = {kind: UUID(bytes=value) for kind, value in _attributes(self.rest[start : start + length]) if kind in _KINDS}
        self.origin = told.get(_UUID)
        self.parent = told.get(_CLONE_UUID) if number == _Number.SNAPSHOT else None
        if self.origin is None or (number == _Number.SNAPSHOT and self.parent is None):
            raise BadRequest("The stream does not say which subvolume it is of")
        return True


_KINDS = (_UUID, _CLONE_UUID)


class Translation:
    """Passes a stream on with other uuids: `known` has ours by the sender's. It makes one subvolume and then ends."""

    def __init__(self, known: Mapping[UUID, UUID]) -> None:
        self._known = known
        self._pending = b""
        self._skip = 0  # bytes of a command that is let through as it is
        self._begun = self._named = False
        self.ended = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What is to be passed on. BadRequest for another subvolume, a uuid that is not known, or what is no stream."""
        if self._skip >= len(data):
            self._skip -= len(data)
            yield data
            return
        if self._skip:
            yield data[: self._skip]
            data, self._skip = data[self._skip :], 0
        self._pending += data
        yield from self._commands()

    def _commands(self) -> Iterator[bytes]:
        data, at = self._pending, 0
        if not self._begun:
            if len(data) < _HEADER.size:
                return
            self._begun, at = True, _HEADER.size
            yield data[:at]
        start = at
        while len(data) - at >= _COMMAND.size:
            if self.ended:
                raise BadRequest("The stream goes on after its end")
            length, number, _ = _COMMAND.unpack_from(data, at)
            end = at + _COMMAND.size + length
            if number in _NAMING:
                if length > LARGEST_COMMAND:
                    raise BadRequest("The stream has a command that is too long")
                if end > len(data):
                    break
                yield data[start:at]
                yield self._renamed(number, data[at + _COMMAND.size : end])
                start = end
            elif number == _Number.END:
                self.ended = True
            if end > len(data):
                self._skip, at = end - len(data), len(data)
                break
            at = end
        yield data[start:at]
        self._pending = data[at:]

    def _renamed(self, number: int, payload: bytes) -> bytes:
        if number != _Number.CLONE:
            if self._named:
                raise BadRequest("The stream holds more than one subvolume")
            self._named = True
        changed = b"".join(
            _ATTRIBUTE.pack(kind, len(value)) + (self._ours(value) if kind in _KINDS else value)
            for kind, value in _attributes(payload)
        )
        checksum = crc32c(_COMMAND.pack(len(changed), number, 0) + changed)
        return _COMMAND.pack(len(changed), number, checksum) + changed

    def _ours(self, value: bytes) -> bytes:
        found = self._known.get(UUID(bytes=value))
        if found is None:
            raise BadRequest("The stream refers to a subvolume that is not part of it")
        return found.bytes


def _attributes(payload: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(payload):
        if at + _ATTRIBUTE.size > len(payload):
            raise BadRequest("The stream has a malformed command")
        kind, length = _ATTRIBUTE.unpack_from(payload, at)
        at += _ATTRIBUTE.size
        value = payload[at : at + length]
        if len(value) != length or (kind in _KINDS and length != 16):
            raise BadRequest("The stream has a malformed command")
        yield kind, value
        at += length


def crc32c(data: bytes) -> int:
    """The checksum of a command, as the kernel makes it: from 0, and not inverted."""
    table, crc = _table(), 0
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc


@cache
def _table() -> tuple[int, ...]:
    def entry(value: int) -> int:
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
        return value

    return tuple(entry(value) for value in range(256))


def fresh() -> UUID:
    """A uuid for a subvolume that is being made."""
    return uuid.uuid4()
