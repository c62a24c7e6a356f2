"""Streams of `btrfs send` as they go by: what they say, and what they may refer to."""

from __future__ import annotations

import struct
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


# --- whatever a stranger sends -----------------------------------------------------------------------------------------

uuids = st.sampled_from([OWN, PARENT, UUID(int=5)])
attributes = st.one_of(
    st.tuples(st.sampled_from([1, 20]), uuids.map(lambda each: each.bytes)),
    st.tuples(st.integers(0, 30), st.binary(max_size=20)),
)
commands = st.builds(lambda number, told: command(number, *told), st.integers(0, 30), st.lists(attributes, max_size=4))
streams = st.one_of(
    st.lists(st.one_of(commands, st.sampled_from([subvolume(), clone(PARENT), WRITE, END])), max_size=5).map(b"".join),
    st.binary(max_size=60),
)
KNOWN = {OWN: OURS, PARENT: BASE}


def fed(stream: bytes, piece: int) -> bytes | None:
    """What goes on to the kernel; None if it is refused."""
    try:
        return translated(stream, piece=piece)
    except BadRequest:
        return None


def named(stream: bytes) -> set[bytes]:
    """The uuids in all commands of a stream, as the kernel's tools read them."""
    found, at = set(), len(HEADER)
    while at + 10 <= len(stream):
        length, number, _ = struct.unpack_from("<IHI", stream, at)
        inner, end = at + 10, min(at + 10 + length, len(stream))
        while number in (1, 2, 16) and inner + 4 <= end:
            kind, size = struct.unpack_from("<HH", stream, inner)
            if kind in (1, 20):
                found.add(stream[inner + 4 : inner + 4 + size])
            inner += 4 + size
        at += 10 + length
    return found


@settings(deadline=None)
@given(streams, st.integers(1, 100))
def test_no_stream_refers_to_what_is_not_known(stream: bytes, piece: int) -> None:
    made = fed(HEADER + stream, piece)
    assert made == fed(HEADER + stream, 100_000), "it matters how the stream is cut"
    if made is not None:
        assert named(made) <= {each.bytes for each in KNOWN.values()}


@settings(deadline=None)
@given(st.data())
def test_a_damaged_stream_is_refused_or_refers_to_what_is_known(data: st.DataObject) -> None:
    stream = bytearray(HEADER + snapshot() + WRITE[:60] + clone(PARENT) + END)
    for _ in range(data.draw(st.integers(1, 4))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    made = fed(bytes(stream), data.draw(st.integers(1, 50)))
    if made is not None:
        assert named(made) <= {each.bytes for each in KNOWN.values()}


@settings(deadline=None)
@given(st.one_of(streams.map(lambda rest: HEADER + rest), st.binary(max_size=80)), st.integers(1, 50))
def test_any_bytes_begin_a_stream_or_are_refused(stream: bytes, piece: int) -> None:
    beginning = Beginning()
    try:
        begun = any(beginning.feed(stream[at : at + piece]) for at in range(0, len(stream), piece))
    except BadRequest:
        return
    assert begun == (beginning.origin is not None)
