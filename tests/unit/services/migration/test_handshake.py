"""What source and target say before files come, where the other one is a stranger."""

from __future__ import annotations

import asyncio
import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.domain import protobuf
from atoll.domain.backup_metadata import InstanceBackup
from atoll.domain.errors import AtollError, BadRequest, Conflict, Unavailable
from atoll.domain.migration_header import Header, Snapshot
from atoll.services.locks import KeyedLocks
from atoll.services.migration import channels, description, handshake
from atoll.services.migration.channels import Channels

TOLD = Header(snapshot_names=("a", "b"), snapshots=(Snapshot(name="a"), Snapshot(name="b")), index_version=1)
nodes = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["config", "Snapshots", "name", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
names = st.sampled_from(["a", "b", "c", "../a", ""])


class Peer:
    """A socket whose other end has said all that it is going to say: messages, None for a barrier."""

    def __init__(self, *says: bytes | None) -> None:
        self._says = list(says)
        self.gone = False
        self.heard: list[bytes] = []

    async def send(self, data: bytes) -> None:
        self.heard.append(data)

    async def send_end(self) -> None:
        pass

    async def receive(self) -> bytes | None:
        self.gone = not self._says
        return self._says.pop(0) if self._says else None

    async def close(self) -> None:
        pass


async def test_what_is_busy_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "_PATIENCE", (0.05, 0.05))
    locks = KeyedLocks()
    async with locks.hold("a"):
        with pytest.raises(Conflict):
            async with handshake.soon(locks.hold("a")):
                pass
    async with handshake.soon(locks.hold("a")):
        await asyncio.sleep(0.1)  # once it is held, there is no hurry
    assert not locks.is_held("a")


@settings(deadline=None)
@given(
    st.binary(max_size=40)
    | st.builds(
        lambda names, refresh, version: protobuf.encode(
            Header(snapshot_names=tuple(names), refresh=refresh, index_version=version)
        ),
        st.lists(names, max_size=3),
        st.booleans(),
        st.none() | st.integers(-1, 2),
    ),
    st.lists(st.none() | st.binary(max_size=20) | nodes.map(lambda tree: json.dumps(tree).encode()), max_size=3),
)
async def test_a_target_gets_only_what_was_offered_whatever_it_says(answer: bytes, more: list[bytes | None]) -> None:
    async def index(chosen: object) -> bytes:
        return b"{}"

    try:
        _, chosen = await handshake.offer(Channels(Peer(answer), Peer(*more)), TOLD, index)
    except AtollError:
        return
    assert set(chosen) <= set(TOLD.snapshot_names)


@settings(deadline=None)
@given(nodes.map(lambda tree: json.dumps({"config": tree}).encode()) | st.binary(max_size=30))
async def test_an_index_is_one_or_refused(said: bytes) -> None:
    link = Channels(Peer(), Peer(said, None))
    try:
        _, found = await handshake.take(link, TOLD, (), Header(), description.parse_index, refresh=False)
    except BadRequest:
        return
    assert isinstance(found, InstanceBackup)
    assert all(each.name for each in found.snapshots)


async def test_an_index_without_end_is_refused() -> None:
    endless = Peer(*[b"x" * (1 << 20)] * 20, None)
    with pytest.raises(BadRequest, match="more than can be"):
        await handshake.take(Channels(Peer(), endless), TOLD, (), Header(), description.parse_index, refresh=False)


class Deaf(Peer):
    """Its other end reads nothing."""

    async def send(self, data: bytes) -> None:
        await asyncio.Event().wait()


async def test_one_who_does_not_listen_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "_ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(handshake, "_ANSWER_SECONDS", 0.05)

    async def index(chosen: object) -> bytes:
        return b"{}"

    wants_index = protobuf.encode(dataclasses.replace(TOLD, snapshots=()))
    for link in (Channels(Deaf(), Peer()), Channels(Peer(wants_index), Deaf())):
        with pytest.raises(Unavailable):
            await asyncio.wait_for(handshake.offer(link, TOLD, index), 5)
