"""LXD's migration messages: round trips, known bytes, and bytes of strangers."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.domain import migration_header as wire
from atoll.domain import protobuf
from atoll.domain.errors import BadRequest

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
numbers = st.integers(-(2**63), 2**63 - 1)
configs = st.lists(st.builds(wire.Config, texts, texts), max_size=3).map(tuple)
devices = st.lists(st.builds(wire.Device, texts, configs), max_size=2).map(tuple)
snapshots = st.builds(
    wire.Snapshot,
    name=texts,
    config=configs,
    profiles=st.lists(texts, max_size=2).map(tuple),
    ephemeral=st.booleans(),
    devices=devices,
    architecture=numbers,
    stateful=st.booleans(),
    created_at=st.none() | numbers,
    last_used_at=st.none() | numbers,
    expires_at=st.none() | numbers,
)
maybe = st.none() | st.booleans()
headers = st.builds(
    wire.Header,
    fs=st.sampled_from(wire.FsType).map(int),
    criu=st.none() | st.sampled_from(wire.Criu).map(int),
    idmap=st.lists(
        st.builds(wire.IdMapping, st.booleans(), st.booleans(), numbers, numbers, numbers),
        max_size=2,
    ).map(tuple),
    snapshot_names=st.lists(texts, max_size=3).map(tuple),
    snapshots=st.lists(snapshots, max_size=3).map(tuple),
    predump=maybe,
    rsync_features=st.none() | st.builds(wire.RsyncFeatures, maybe, maybe, maybe, maybe, maybe),
    refresh=maybe,
    volume_size=st.none() | numbers,
    index_version=st.none() | st.integers(0, 2**32 - 1),
)


@given(headers)
def test_what_is_written_is_read(header: wire.Header) -> None:
    assert protobuf.decode(wire.Header, protobuf.encode(header)) == header


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    try:
        protobuf.decode(wire.Header, data)
    except BadRequest:
        pass


@given(headers, st.data())
def test_a_cut_or_changed_message_is_a_message_or_refused(header: wire.Header, data: st.DataObject) -> None:
    whole = bytearray(protobuf.encode(header))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] = data.draw(st.integers(0, 255))
    for changed in (bytes(whole), bytes(whole[:at])):
        try:
            protobuf.decode(wire.Header, changed)
        except BadRequest:
            pass


def test_known_bytes() -> None:
    assert protobuf.encode(wire.Control(success=True)) == b"\x08\x01"
    assert protobuf.encode(wire.Control(success=False, message="no")) == b"\x08\x00\x12\x02no"
    assert protobuf.encode(wire.RsyncFeatures(xattrs=True, compress=False)) == b"\x08\x01\x18\x00"
    assert protobuf.decode(wire.Header, b"\x08\x00\x10\x02") == wire.Header(fs=0, criu=wire.Criu.NONE)


def test_unknown_fields_are_passed_over() -> None:
    more = b"\xf0\x01\x05" + b"\xfa\x01\x03abc" + b"\xf9\x0112345678" + b"\xfd\x011234"
    assert protobuf.decode(wire.Control, b"\x08\x01" + more) == wire.Control(success=True)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "lacks 'success'"),
        (b"\x08", "cut off"),
        (b"\x08\x01\x12\x7fno", "cut off"),
        (b"\x0a\x01x", "no number"),
        (b"\x08\x01\x10\x01", "has a number"),
        (b"\x08\x01\x12\x01\xff", "no text"),
        (b"\x08" + b"\xff" * 10 + b"\x01", "malformed"),
        (b"\x0b", "malformed"),
    ],
)
def test_what_is_wrong_is_told(data: bytes, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason):
        protobuf.decode(wire.Control, data)


def test_little_data_does_not_become_many_objects() -> None:
    with pytest.raises(BadRequest, match="too many values"):
        protobuf.decode(wire.Header, b"\x08\x00" + b"\x22\x00" * (protobuf.MOST_VALUES + 1))
    with pytest.raises(BadRequest):  # of no field that there is
        protobuf.decode(wire.Header, b"\x08\x00" + b"\x9d\x06\x00\x00\x00\x00" * (protobuf.MOST_VALUES + 1))


def test_depth_is_bounded() -> None:
    kind = _nested(20)
    data = b""
    for _ in range(20):
        data = b"\x0a" + bytes([len(data)]) + data
    with pytest.raises(BadRequest, match="nested too deeply"):
        protobuf.decode(kind, data)


def _nested(levels: int) -> type:
    kind: type = wire.Control
    for _ in range(levels):
        inner = kind

        @dataclass(frozen=True)
        class Outer:
            inner_message: object = protobuf.message(1, inner)

        kind = Outer
    return kind
