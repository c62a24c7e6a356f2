"""Volumes that another server sends as streams, see `subvolume_streams`.

What a stream calls the subvolumes that it refers to is looked up here, not by the kernel (`host/btrfs_stream`): a change is
received upon the snapshot of this volume that its sender means, or not at all. What a snapshot's streams called it is kept in an
attribute of its folder, together with what it is called here: a copy of it is not taken for it.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from atoll.domain.errors import BadRequest
from atoll.drivers.storage import blocking
from atoll.drivers.storage.btrfs import quotas, receiving
from atoll.drivers.storage.btrfs.folders import SubvolumeFolders
from atoll.drivers.storage.btrfs.receiving import NAMES_ATTRIBUTE
from atoll.drivers.storage.contract import VolumeId
from atoll.drivers.storage.rubbish import Rubbish
from atoll.drivers.storage.subvolume_streams import Coming
from atoll.host import archive_sandbox, btrfs, btrfs_stream, program_streams
from atoll.host.archive_sandbox import Jail, Program
from atoll.host.btrfs_stream import Beginning, Translation

_LARGEST_ATTRIBUTE = 12_000
"""The file system has attributes of up to a node's size."""

_WHAT = "receive a volume"


class Arrivals:
    """See `subvolume_streams.Receiver`. `known` grows by what is received."""

    def __init__(self, pool: SubvolumeFolders, rubbish: Rubbish, volume: VolumeId, known: Mapping[UUID, Path]) -> None:
        self._pool = pool
        self._rubbish = rubbish
        self._volume = volume
        self._known = dict(known)

    async def receive(self, state: VolumeId, parts: Sequence[Coming]) -> None:
        """Everything is received aside, put together there, and published whole."""
        stage = await blocking.call(_WHAT, self._pool.temporary, "receive")
        names: dict[str, set[UUID]] = {}
        try:
            top, names["/"] = await self._receive(stage, parts[0])
            for part in parts[1:]:
                path = receiving.checked(part.path)
                below, names[f"/{path}"] = await self._receive(stage, part)
                await blocking.call(_WHAT, receiving.nest, below, top, path)
            flags = {receiving.checked(part.path): part.readonly for part in parts[1:]}
            await blocking.call(_WHAT, receiving.settle, top, state, flags)
            if state.snapshot:
                await blocking.call(_WHAT, self._publish_snapshot, top, state, names)
            else:
                await self._rubbish.remove(await blocking.call(_WHAT, self._publish, top))
        finally:
            await blocking.call(_WHAT, self._pool.remove, stage)

    async def _receive(self, stage: Path, part: Coming) -> tuple[Path, set[UUID]]:
        """The subvolume that a stream makes, and what its sender calls it."""
        stream = part.stream
        beginning = Beginning()
        while not beginning.feed(await anext(stream, b"") or _ended()):
            pass
        assert beginning.origin is not None  # it has begun
        names, base = {beginning.origin: btrfs_stream.fresh()}, None
        if beginning.parent is not None:
            base = self._known.get(beginning.parent)
            if base is None:
                raise BadRequest(
                    "The other server sends changes of a snapshot that is not here", hint="refresh again: file by file then"
                )
            names[beginning.parent] = await blocking.call(_WHAT, _own, base)
        target, jail = await blocking.call(_WHAT, receiving.jail, self._pool, stage, base)
        made = await self._run(target, jail, Translation(names), beginning.rest, stream)
        called = {beginning.origin}
        with suppress(ValueError):
            called.add(UUID(part.uuid))
        return made, called

    async def _run(self, target: Path, jail: Jail, translation: Translation, first: bytes, stream: AsyncIterator[bytes]) -> Path:
        argv = receiving.argv(self._pool, target)

        async def start(reader: int) -> Program:
            return await archive_sandbox.start(argv, jail, stdin=reader)

        async def translated() -> AsyncIterator[bytes]:
            for piece in translation.feed(first):
                yield piece
            async for data in stream:
                for piece in translation.feed(data):
                    yield piece

        code, said = await program_streams.feed(start, translated())
        receiving.raise_failure(code, said)
        made = await blocking.call(_WHAT, receiving.only_subvolume, target)
        await blocking.call(_WHAT, _forget, made)
        return made

    def _publish_snapshot(self, top: Path, state: VolumeId, names: Mapping[str, Collection[UUID]]) -> None:
        """With its attribute. Those of its parts that are to be writable are so, but nobody writes to them."""
        parts = {path: [str(_own(_place(top, path))), *map(str, called)] for path, called in names.items()}
        text = json.dumps(parts).encode()
        if len(text) <= _LARGEST_ATTRIBUTE:
            os.setxattr(top, NAMES_ATTRIBUTE, text)
        self._pool.publish(top, state)
        data = self._pool.data(state)
        self._known |= {name: _place(data, path) for path, called in names.items() for name in called}

    def _publish(self, top: Path) -> list[Path]:
        """The volume itself, with the limit of one in whose place it comes. Returns what is to be removed."""
        volume, place = self._volume, self._pool.data(self._volume)
        if not btrfs.is_subvolume(place):
            self._pool.publish(top, volume)
            return []
        quotas.copy_size(place, top)
        self._pool.exchange(top, volume)
        return [top]


def origins(pool: SubvolumeFolders, snapshots: Collection[VolumeId]) -> Mapping[UUID, Path] | None:
    """See `subvolume_streams`. Blocks."""
    found: dict[UUID, Path] = {}
    for snapshot in snapshots:
        data = pool.require(snapshot)
        try:
            parts = json.loads(os.getxattr(data, NAMES_ATTRIBUTE))
            for path, (own, *called) in parts.items():
                place = _place(data, path)
                if str(_own(place)) != own:
                    return None  # a copy of what was received
                found |= {UUID(name): place for name in called}
        except (OSError, ValueError, AttributeError):
            return None
    return found


def forget(pool: SubvolumeFolders, snapshots: Collection[VolumeId]) -> None:
    """See `subvolume_streams`. Blocks."""
    for snapshot in snapshots:
        data = pool.data(snapshot)
        with suppress(FileNotFoundError), btrfs.opened(data) as subvolume:
            btrfs.set_readonly(subvolume, readonly=False)
            try:
                receiving.forget_names(data)
            finally:
                btrfs.set_readonly(subvolume, readonly=True)


def _place(data: Path, path: str) -> Path:
    return data / path.strip("/")


def _own(place: Path) -> UUID:
    with btrfs.opened(place) as subvolume:
        return btrfs.identity(subvolume).own


def _forget(made: Path) -> None:
    """It came from elsewhere; nothing is received upon it by that name."""
    with btrfs.opened(made) as subvolume:
        btrfs.forget_origin(subvolume)


def _ended() -> bytes:
    raise BadRequest("The stream ends early")
