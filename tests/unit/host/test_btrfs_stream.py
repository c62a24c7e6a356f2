"""Streams of `btrfs send` as they go by: what they say, and what they may refer to."""

from __future__ import annotations

import struct
from uuid import UUID, uuid4

import pytest

from atoll.domain.errors import BadRequest
from atoll.host import btrfs_stream
from atoll.host.btrfs_stream import Beginning, Translation

OWN, PARENT, OURS, BASE = (uuid4() for _ in range(4))
HEADER = b"btrfs-stream\0" + struct.pack("<I", 1)


def command(number: int, *attributes: tuple[int, bytes]) -> bytes:
    payload = b"".join(struct.pack("<HH", kind, len(value)) + value for kind, value in attributes)
    checksum = btrfs_stream.crc32c(struct.pack("<IHI", len(payload), number, 0) + payload)
    return struct.pack("<IHI", len(payload), number, checksum) + payload


def subvolume(name: UUID = OWN) -> bytes:
    return command(1, (15, b"s0"), (1, name.bytes), (2, bytes(8)))


def snapshot(parent: UUID = PARENT) -> bytes:
    return command(2, (15, b"s1"), (1, OWN.bytes), (2, bytes(8)), (20, parent.bytes), (21, bytes(8)))


def clone(source: UUID) -> bytes:
    return command(16, (15, b"f"), (18, bytes(8)), (20, source.bytes), (22, b"g"))


WRITE = command(15, (15, b"f"), (18, bytes(8)), (19, b"x" * 5000))
END = command(21)


def translated(stream: bytes, *, piece: int = 7, known: dict[UUID, UUID] | None = None) -> bytes:
    translation = Translation({OWN: OURS, PARENT: BASE} if known is None else known)
    return b"".join(part for at in range(0, len(stream), piece) for part in translation.feed(stream[at : at + piece]))


def test_the_checksum_is_the_kernel_s() -> None:
    assert btrfs_stream.crc32c(b"123456789") == 0x58E3FA20
    assert btrfs_stream.crc32c(b"") == 0


def test_what_it_says_of_itself() -> None:
    for stream, parent in ((HEADER + subvolume(), None), (HEADER + snapshot(), PARENT)):
        beginning = Beginning()
        fed = [beginning.feed(stream[at : at + 10]) for at in range(0, len(stream), 10)]
        assert (fed[-1], beginning.origin, beginning.parent) == (True, OWN, parent)
        assert beginning.rest == stream


@pytest.mark.parametrize("piece", [1, 7, 100, 100_000])
def test_uuids_become_ours_and_all_else_stays(piece: int) -> None:
    stream = HEADER + snapshot() + WRITE + clone(PARENT) + WRITE + clone(OWN) + END
    ours = stream
    for theirs, own in ((OWN, OURS), (PARENT, BASE)):
        ours = ours.replace(theirs.bytes, own.bytes)
    made = translated(stream, piece=piece)
    assert len(made) == len(stream)
    at = len(HEADER)
    while at < len(made):
        length, number, checksum = struct.unpack_from("<IHI", made, at)
        body = made[at + 10 : at + 10 + length]
        assert body == ours[at + 10 : at + 10 + length]
        assert checksum == btrfs_stream.crc32c(struct.pack("<IHI", length, number, 0) + body)
        at += 10 + length


@pytest.mark.parametrize(
    "stream",
    [
        HEADER + subvolume(uuid4()),
        HEADER + subvolume() + clone(uuid4()),
        HEADER + subvolume() + subvolume(),
        HEADER + subvolume() + snapshot(),
        HEADER + subvolume() + END + WRITE,
        HEADER + struct.pack("<IHI", 1 << 30, 1, 0),
        HEADER + subvolume() + struct.pack("<IHI", 1 << 17, 16, 0),
        HEADER + command(1, (1, b"short")),
        HEADER + struct.pack("<IHI", 3, 1, 0) + b"abc",
    ],
)
def test_what_refers_to_others_or_is_malformed(stream: bytes) -> None:
    with pytest.raises(BadRequest):
        translated(stream)


@pytest.mark.parametrize(
    "stream",
    [
        b"x" * 100,
        b"btrfs-stream\0" + struct.pack("<I", 9) + subvolume(),
        HEADER + WRITE,
        HEADER + command(1, (15, b"s0")),
        HEADER + command(2, (1, OWN.bytes)),
        HEADER + struct.pack("<IHI", 1 << 30, 1, 0),
    ],
)
def test_what_does_not_begin_as_it_must(stream: bytes) -> None:
    with pytest.raises(BadRequest):
        Beginning().feed(stream)
