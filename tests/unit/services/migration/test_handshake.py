from __future__ import annotations

import asyncio

import pytest

from atoll.domain.errors import Conflict
from atoll.services.locks import KeyedLocks
from atoll.services.migration import handshake


async def test_what_is_busy_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "_PATIENCE", (0.05, 0.05))
    locks = KeyedLocks()
    async with locks.hold("a"):
        with pytest.raises(Conflict):
            async with handshake.soon(locks.hold("a")):
                pass
    async with handshake.soon(locks.hold("a")):
        await asyncio.sleep(0.1)  # once it is held, there is no hurry
    assert not locks.is_held("a")
