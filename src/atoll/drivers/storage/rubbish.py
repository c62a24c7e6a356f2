"""Removing large trees in the background, after they were taken out of sight."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from atoll.host import confined, threads

log = logging.getLogger(__name__)

PATIENCE = 0.25
"""Seconds that a caller waits for a removal, so that small trees are gone when it returns."""


class Rubbish:
    """Removes folders that were already taken out of sight. What fails is tried again with the next removal: something may be
    mounted there still, by a disk that shows all of the host. What is cut short is left to the next audit."""

    def __init__(self, remover: Callable[[Path], None] = confined.remove_tree) -> None:
        self._remover = remover
        self._tasks: set[asyncio.Task[None]] = set()
        self._left: set[Path] = set()

    async def remove(self, paths: Sequence[Path]) -> None:
        """Remove the trees; returns when they are gone, or after PATIENCE seconds, and goes on in the background."""
        if not paths:
            return
        task = asyncio.create_task(self._remove(paths))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.wait([task], timeout=PATIENCE)

    async def drain(self) -> None:
        """Wait for the removals that are under way."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _remove(self, paths: Sequence[Path]) -> None:
        again, self._left = self._left, set()
        for path in [*paths, *again]:
            try:
                await threads.in_thread(self._remover, path)
            except Exception:  # the volume is gone for its users already
                if path not in again:
                    log.exception("Cannot remove a deleted volume's files", extra={"path": str(path)})
                self._left.add(path)
