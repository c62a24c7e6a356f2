"""How much of what is free here a stranger's archive may take."""

from __future__ import annotations

from pathlib import Path

from atoll.drivers.storage.contract import StorageDriver
from atoll.host import disk
from atoll.host.archive_tar import Budget
from atoll.host.threads import in_thread

_SHARE_OF_FREE = 0.9

SEARCH = Budget(bytes=4 << 30, seconds=120.0)
"""How far into an archive its description is looked for; whoever makes one puts it first."""


async def of_pool(driver: StorageDriver) -> Budget:
    """What is free in the pool, but for a reserve, whatever the archive claims."""
    found = await driver.resources()
    free = int((found.space_total - found.space_used) * _SHARE_OF_FREE)
    entries = int((found.inodes_total - found.inodes_used) * _SHARE_OF_FREE) if found.inodes_total else Budget().entries
    return Budget(bytes=free, entries=min(entries, Budget().entries))


async def of_folder(folder: Path) -> int:
    """Bytes that may be uploaded to where that folder is."""
    found = await in_thread(disk.space, folder)
    return int((found.total - found.used) * _SHARE_OF_FREE)
