"""A limit to how fast something goes."""

from __future__ import annotations

import asyncio
import time


class Pace:
    """At most `rate` bytes a second on average, counted anew after a rest; 0: as fast as it goes."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._free_at = 0.0

    async def take(self, size: int) -> None:
        """Wait until that many more bytes have had their time."""
        if self._rate:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + size / self._rate
            await asyncio.sleep(self._free_at - now)
