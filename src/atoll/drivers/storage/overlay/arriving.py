"""Volumes that come from another server layer by layer, see `layer_streams`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from atoll.domain.errors import BadRequest
from atoll.drivers.storage import blocking
from atoll.drivers.storage.contract import VolumeId
from atoll.drivers.storage.folders import Folders
from atoll.drivers.storage.layer_streams import Settle, Unpack
from atoll.drivers.storage.overlay import layer_marks
from atoll.drivers.storage.overlay.layers import DEEPEST, LayerStore
from atoll.drivers.storage.overlay.volumes import StackedVolumes
from atoll.drivers.storage.rubbish import Rubbish

_WHAT = "receive a volume"


class Arrivals:
    """See `layer_streams.LayerArrival`. Its new layers are held as if by a volume of their own until it is over."""

    def __init__(self, pool: Folders, store: LayerStore, stacks: StackedVolumes, rubbish: Rubbish) -> None:
        self._pool = pool
        self._store = store
        self._stacks = stacks
        self._rubbish = rubbish
        self._made: list[str] = []
        self._used: set[str] = set()

    async def layer(self, unpack: Unpack, opaque: Sequence[bytes], *, upper: bool) -> str:
        """It is filled aside."""
        tree = await blocking.call(_WHAT, self._pool.temporary, "layer")
        try:
            if upper:
                await blocking.call(_WHAT, self._store.sizes.begin, tree)
            await unpack(tree)
            return await blocking.call(_WHAT, self._adopt, tree, opaque)
        except BaseException:
            await self._rubbish.remove([tree])
            raise

    def _adopt(self, tree: Path, opaque: Sequence[bytes]) -> str:
        layer_marks.set_opaque(tree, opaque)
        layer = self._store.adopt(tree)
        self._store.hold((layer,))
        self._made.append(layer)
        return layer

    async def state(self, state: VolumeId, stack: Sequence[str], settle: Settle) -> None:
        """An instance writes to its first layer: that is one of its own, or a new one is put above."""
        if not stack or len(stack) > DEEPEST or len(set(stack)) != len(stack):
            raise BadRequest(f"A state has no layers, the same twice, or more than {DEEPEST}")
        made = await blocking.call(_WHAT, self._pool.temporary)
        try:
            await settle(made)
            above = not state.snapshot and (stack[0] not in self._made or stack[0] in self._used)
            await blocking.call(_WHAT, self._stacks.publish_arrived, made, state, tuple(stack), above=above)
        except BaseException:
            await self._rubbish.remove([made])
            raise
        self._used.update(stack)

    def release(self) -> list[Path]:
        """It is over. Returns what is to be removed. Blocks."""
        return self._stacks.release(tuple(self._made))


@asynccontextmanager
async def arriving(pool: Folders, store: LayerStore, stacks: StackedVolumes, rubbish: Rubbish) -> AsyncIterator[Arrivals]:
    """See `layer_streams`."""
    arrivals = Arrivals(pool, store, stacks, rubbish)
    try:
        yield arrivals
    finally:
        await rubbish.remove(await blocking.call(_WHAT, arrivals.release))
