"""The size of an instance's root: that of its root disk, else `volume.size` of the pool."""

from __future__ import annotations

from atoll.config import units
from atoll.db import storage as rows
from atoll.domain.undo import Reverter
from atoll.services.instances.core import InstanceCore, Loaded
from atoll.services.instances.expand import Expanded


async def apply(core: InstanceCore, loaded: Loaded) -> None:
    """Limit the root of an instance that is being made."""
    size = await _wanted(core, loaded.pool, loaded.expanded)
    if size:
        await core.storage.set_size(loaded.pool, loaded.volume, size)


async def change(core: InstanceCore, loaded: Loaded, expanded: Expanded, undo: Reverter) -> None:
    """Take the root, which may be in use, to another size if the new devices give it one; taken back by `undo`."""
    if _own(loaded.expanded) == _own(expanded):
        return
    core.storage.driver(loaded.pool)  # Unavailable, before there is anything to take back
    undo.add(core.storage.set_size, loaded.pool, loaded.volume, await _wanted(core, loaded.pool, loaded.expanded))
    await core.storage.set_size(loaded.pool, loaded.volume, await _wanted(core, loaded.pool, expanded))


async def _wanted(core: InstanceCore, pool: str, expanded: Expanded) -> int | None:
    """Bytes; None without limit."""
    size = _own(expanded)
    if not size:
        async with core.database.read() as tx:
            size = (await rows.pool(tx, pool)).config.get("volume.size", "")
    return units.parse_size(size) or None if size else None


def _own(expanded: Expanded) -> str:
    """Where there are several root disks, none says it."""
    roots = list(expanded.root_disks().values())
    return roots[0].get("size", "") if len(roots) == 1 else ""
