"""How much the instances of a pool use: what their own layers take on disk, counted behind the scenes.

A list of instances must not wait for tree walks, so answers come from memory, and counting goes on in one thread at a time. Who
asks for a single volume waits a moment for its figure, which for the few files of a usual upper layer is enough.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from atoll.domain.errors import NotFound
from atoll.drivers.storage.contract import VolumeId
from atoll.host.threads import waiting_thread

FRESH_SECONDS = 30.0
PATIENCE = 0.1
MOST_ENTRIES = 1_000_000


class Usage:
    """Figures by volume; `trees` tells which directories are a volume's own."""

    def __init__(self, trees: Callable[[VolumeId], Sequence[Path]]) -> None:
        self._trees = trees
        self._known: dict[VolumeId, tuple[float, int]] = {}
        self._wanted: dict[VolumeId, None] = {}
        self._task: asyncio.Task[None] | None = None

    async def of(self, volumes: Sequence[VolumeId]) -> Mapping[VolumeId, int]:
        """Bytes of those whose figure is known; the others', and old ones, are counted meanwhile."""
        now = time.monotonic()
        stale = [each for each in volumes if each not in self._known or now - self._known[each][0] > FRESH_SECONDS]
        self._wanted.update(dict.fromkeys(stale))
        if stale and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._count_all(), name="storage usage")
        if len(volumes) == 1 and stale and self._task is not None:
            await asyncio.wait([self._task], timeout=PATIENCE)
        return {each: self._known[each][1] for each in volumes if each in self._known}

    async def _count_all(self) -> None:
        while self._wanted:
            volume = next(iter(self._wanted))
            del self._wanted[volume]
            size = await waiting_thread(_count, self._trees, volume)
            self._known.pop(volume, None)
            if size is not None:
                self._known[volume] = time.monotonic(), size

    def forget(self, volume: VolumeId) -> None:
        """The volume is gone, or another one has its name."""
        self._known.pop(volume, None)

    async def stop(self) -> None:
        """End counting."""
        self._wanted.clear()
        if self._task is not None:
            await asyncio.wait([self._task])


def _count(trees: Callable[[VolumeId], Sequence[Path]], volume: VolumeId) -> int | None:
    """Bytes on disk, each inode once; None when the volume went away meanwhile."""
    try:
        return sum(_size(tree) for tree in trees(volume))
    except (OSError, NotFound):
        return None


def _size(tree: Path) -> int:
    total, entries = 0, 0
    linked: set[int] = set()
    pending = [os.fspath(tree)]
    while pending and entries < MOST_ENTRIES:
        with os.scandir(pending.pop()) as found:
            for entry in found:
                entries += 1
                facts = entry.stat(follow_symlinks=False)
                if facts.st_nlink > 1 and not entry.is_dir(follow_symlinks=False):
                    if facts.st_ino in linked:
                        continue
                    linked.add(facts.st_ino)
                total += facts.st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
    return total
