"""Storage pools that could not be opened are tried again each minute, and so is what is half done in those that are open.

One that is back is repaired first, while nobody else can use it, as at the daemon's start; then those of its instances start that
would have been started then.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

from atoll.domain.errors import AtollError
from atoll.services.storage import StorageService

log = logging.getLogger(__name__)

Repair = Callable[[str], Awaitable[Sequence[str]]]
"""Settles what a kill left half done in a pool; a sentence for each thing."""


class PoolWatch:
    """`repairs` in the order of what stands on what, after `first`, which is for pools alone that nobody can use; `back` is told
    of each pool that can be used again."""

    def __init__(
        self, storage: StorageService, first: Repair, repairs: Sequence[Repair], back: Callable[[str], Awaitable[None]]
    ) -> None:
        self._storage = storage
        self._first = first
        self._repairs = repairs
        self._back = back

    async def tick(self, minutes: Sequence[datetime]) -> None:
        """Try all that are not available, or not whole; not in the moment after the daemon's start, which has just tried."""
        if not minutes:
            return
        for pool in await self._storage.unavailable():
            async with self._storage.reopening(pool) as opened:
                for repair in (self._first, *self._repairs) if opened else ():
                    await self._repair(pool, repair)
            if opened:
                log.info("Storage pool %s is available again", pool)
                await self._back(pool)
        for sentence in await self._storage.settle():
            log.warning("Repaired: %s", sentence)
        for pool in await self._storage.with_unfinished():
            for repair in self._repairs:
                await self._repair(pool, repair)

    @staticmethod
    async def _repair(pool: str, repair: Repair) -> None:
        try:
            for sentence in await repair(pool):
                log.warning("Repaired: %s", sentence)
        except (AtollError, OSError) as error:  # of one part; the others are as good as without it
            log.error("Repairing what is in storage pool %s: %s", pool, error)
