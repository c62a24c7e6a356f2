"""An additional ability of drivers that keep instances as stacks of layers: to send and receive the layers themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from atoll.drivers.storage.contract import VolumeId


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer to be sent: its name, where it is, and its directories that hide what is below them, by their paths."""

    name: str
    tree: Path
    opaque: Sequence[bytes] = ()


Unpack = Callable[[Path], Awaitable[None]]
"""Fills an empty directory with a layer's files."""

Settle = Callable[[Path], Awaitable[None]]
"""Puts what stands beside a root file system into a volume's folder."""


class LayerArrival(Protocol):
    """One volume that is being received. Layers that no state of it has at the end of the block of `arriving` are removed."""

    async def layer(self, unpack: Unpack, opaque: Sequence[bytes], *, upper: bool) -> str:
        """Our name of a new layer. `upper`: it is the one that the volume itself will write to. BadRequest for paths that are
        no directories of it."""

    async def state(self, state: VolumeId, stack: Sequence[str], settle: Settle) -> None:
        """Make a snapshot, or, last, the volume, of layers by our names, topmost first."""


@runtime_checkable
class LayerStreams(Protocol):
    """See the module."""

    async def stacks(self, states: Sequence[VolumeId]) -> Mapping[VolumeId, Sequence[str]]:
        """Of snapshots, or volumes that no machine uses: their layers' names, topmost first. They are at rest then."""

    async def layer(self, name: str) -> Layer:
        """Unsupported if it has marks that only make sense where it was made."""

    def image(self, fingerprint: str) -> AbstractAsyncContextManager[str | None]:
        """The name of the layer that an image was unpacked to, which stays while the block runs; None if the pool has none."""

    async def digest(self, name: str) -> str:
        """The same for two layers of images if, and only if, a guest sees the same in them; "" if nobody can tell."""

    def arriving(self, volume: VolumeId) -> AbstractAsyncContextManager[LayerArrival]:
        """To receive a volume that is not there."""
