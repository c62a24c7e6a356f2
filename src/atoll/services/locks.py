"""Locks by name: one holder per key, keys forgotten when nobody wants them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Hashable
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Entry:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class KeyedLocks:
    """`async with locks.hold(key): …`. Hold several at once in sorted order, which `hold` with many keys does."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, _Entry] = {}

    @contextlib.asynccontextmanager
    async def hold(self, *keys: Hashable) -> AsyncIterator[None]:
        """Wait for all keys, in one order for everybody, so that no two holders wait for each other."""
        async with contextlib.AsyncExitStack() as stack:
            for key in sorted(set(keys), key=repr):
                await stack.enter_async_context(self._one(key))
            yield

    @contextlib.asynccontextmanager
    async def _one(self, key: Hashable) -> AsyncIterator[None]:
        entry = self._entries.setdefault(key, _Entry())
        entry.users += 1
        try:
            async with entry.lock:
                yield
        finally:
            entry.users -= 1
            if not entry.users:
                del self._entries[key]

    def is_held(self, key: Hashable) -> bool:
        """Whether somebody has it now, or is the next to have it: whoever takes one that is not held never waits."""
        return key in self._entries
