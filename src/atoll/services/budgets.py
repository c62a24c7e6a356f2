"""How much of what is free here may be taken by what strangers send: archives, trees, uploads (security invariant I8)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from atoll.domain.errors import TooLarge
from atoll.drivers.storage.contract import StorageDriver
from atoll.host import disk
from atoll.host.archive_tar import Budget
from atoll.host.threads import in_thread

_SHARE_OF_FREE = 0.9

LOOK_SECONDS = 2.0
"""How often a pool is looked at while something comes in whose size nobody knows."""

SEARCH = Budget(bytes=4 << 30, seconds=120.0)
"""How far into an archive its description is looked for; whoever makes one puts it first."""


async def of_pool(driver: StorageDriver) -> Budget:
    """What is free in the pool, but for a reserve, whatever the archive claims."""
    found = await driver.resources()
    free = int((found.space_total - found.space_used) * _SHARE_OF_FREE)
    entries = int((found.inodes_total - found.inodes_used) * _SHARE_OF_FREE) if found.inodes_total else Budget().entries
    return Budget(bytes=free, entries=min(entries, Budget().entries))


@asynccontextmanager
async def watched(driver: StorageDriver) -> AsyncIterator[None]:
    """While the block runs, the pool may get fuller by what `of_pool` allows: beyond that the block is cut off, with TooLarge."""
    budget, begun = await of_pool(driver), await driver.resources()

    async def watch(limit: asyncio.Timeout) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = await driver.resources()
            taken, entries = now.space_used - begun.space_used, now.inodes_used - begun.inodes_used
            if taken > budget.bytes or (begun.inodes_total and entries > budget.entries):
                limit.reschedule(0)
                return

    limit = asyncio.timeout(None)
    try:
        async with limit:
            looking = asyncio.create_task(watch(limit), name="budget of a pool")
            try:
                yield
            finally:
                looking.cancel()
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise TooLarge("What the other server sends is more than this pool has room for") from error


async def of_folder(folder: Path) -> int:
    """Bytes that may be uploaded to where that folder is."""
    found = await in_thread(disk.space, folder)
    return int((found.total - found.used) * _SHARE_OF_FREE)
