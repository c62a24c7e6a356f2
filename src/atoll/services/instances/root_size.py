"""The size of an instance's root: that of its root disk, else `volume.size` of the pool.

What a profile says of it is kept also while the pool is away: a volatile key, LXD's for a size that cannot be set yet, says so
until it can.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from atoll.config import units
from atoll.db import instances
from atoll.db import storage as rows
from atoll.domain.undo import Reverter
from atoll.drivers.instance.contract import MachineId
from atoll.services.instances.core import InstanceCore, Loaded
from atoll.services.instances.expand import Expanded

_LATER = ".apply_quota"
"""How the key ends, after the name of the root disk."""


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


def put_off(core: InstanceCore, loaded: Loaded, expanded: Expanded) -> dict[str, str]:
    """Volatile changes by which `settle` does later what `change` cannot do, the pool being away."""
    if core.storage.is_available(loaded.pool) or _own(loaded.expanded) == _own(expanded):
        return {}
    return {f"volatile.{expanded.root_disk()[0]}{_LATER}": _own(expanded) or "0"}


async def settle(core: InstanceCore, pool: str | None) -> list[str]:
    """See `settling`: set the sizes that were put off. One sentence for each."""
    async with core.database.read() as tx:
        waiting = {MachineId(*each) for each in await instances.having(tx, f"volatile.%{_LATER}")}
    found = [each for each in await core.load_all(None) if each.machine in waiting] if waiting else []
    listed = [each for each in found if pool in (None, each.pool) and core.storage.is_available(each.pool)]
    return await core.settle(listed, functools.partial(_set, core))


async def _set(core: InstanceCore, loaded: Loaded) -> Sequence[str]:
    done = {key: "" for key in loaded.record.config if key.startswith("volatile.") and key.endswith(_LATER)}
    if not done:
        return ()
    await core.storage.set_size(loaded.pool, loaded.volume, await _wanted(core, loaded.pool, loaded.expanded))
    await core.patch_volatile(loaded.record, done)
    return [f"set the size of instance {loaded.record.name}: its pool was away when that changed"]


async def _wanted(core: InstanceCore, pool: str, expanded: Expanded) -> int | None:
    """Bytes; None without limit."""
    size = _own(expanded)
    if not size:
        async with core.database.read() as tx:
            size = (await rows.pool(tx, pool)).config.get("volume.size", "")
    return units.parse_size(size) or None if size else None


def _own(expanded: Expanded) -> str:
    """The size that the root disk says; "" if there are several root disks."""
    roots = list(expanded.root_disks().values())
    return roots[0].get("size", "") if len(roots) == 1 else ""
