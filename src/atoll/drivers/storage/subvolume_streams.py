"""An additional ability of storage drivers: volumes as streams of subvolumes (`btrfs send` and `btrfs receive`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable
from uuid import UUID

from atoll.drivers.storage.contract import VolumeId


@dataclass(frozen=True, slots=True)
class Part:
    """A subvolume of a volume that is at rest: its path from the volume's own, which is "/"; whether it is read-only there; what
    streams of it call it; and where it can be read."""

    path: str
    readonly: bool
    uuid: UUID
    place: Path


@dataclass(frozen=True, slots=True)
class Coming:
    """A subvolume of a volume on its way: its path, what it has to be there, and its stream. `uuid`: what its sender calls it,
    beside what its stream does; streams of changes may refer to it by either."""

    path: str
    readonly: bool
    uuid: str
    stream: AsyncIterator[bytes]


Sink = Callable[[bytes], Awaitable[None]]


class Receiver(Protocol):
    """One volume that is being received, state by state."""

    async def receive(self, state: VolumeId, parts: Sequence[Coming]) -> None:
        """Make a snapshot of the volume, or, last, itself; its own subvolume is the first part. The streams are read one after
        the other; each is whole or a change of what has come before, or was `kept`. A volume that is there already is replaced
        in one step. BadRequest for streams that are no such thing or do not fit."""


@runtime_checkable
class SubvolumeStreams(Protocol):
    """See the module."""

    def at_rest(self, volume: VolumeId) -> AbstractAsyncContextManager[Sequence[Part]]:
        """The parts of a snapshot, or of a volume that no machine uses, itself first; they stay while the block runs."""

    async def stream(self, part: Part, base: Part | None, sink: Sink) -> None:
        """Send one, as a change of `base` if that is given: a read-only one of a snapshot at rest."""

    async def origins(self, snapshots: Collection[VolumeId]) -> Mapping[UUID, Path] | None:
        """What their sender called the parts of these snapshots when they were received; None if one of them was not, or not by
        a stream."""

    def receiver(self, volume: VolumeId, known: Mapping[UUID, Path]) -> Receiver:
        """To receive a volume. `known`: `origins` of the snapshots that it keeps."""

    async def forget(self, snapshots: Collection[VolumeId]) -> None:
        """No change can be received upon these any more."""
