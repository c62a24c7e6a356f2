"""What drivers without streams of their own answer to `send` and `receive`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from atoll.domain.errors import Unsupported
from atoll.drivers.storage.contract import Stream, VolumeId


class WithoutStreams:
    """Base of drivers whose backups are always plain archives."""

    name: str

    async def send(self, volume: VolumeId, target: Path, *, parent: VolumeId | None) -> Sequence[Stream]:
        """See the contract."""
        raise Unsupported(f"Storage driver {self.name!r} has no optimized backups")

    async def receive(self, volume: VolumeId, source: Path, *, parent: VolumeId | None, nested: Sequence[Stream] = ()) -> None:
        """See the contract."""
        raise Unsupported(f"Storage driver {self.name!r} has no optimized backups")
