"""What strangers send may fill a pool up to a reserve, and not beyond."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from atoll.domain.errors import TooLarge
from atoll.drivers.storage.contract import Resources
from atoll.services import budgets


class Pool:
    """Of a thousand bytes and a hundred inodes."""

    def __init__(self) -> None:
        self.bytes = self.inodes = 0

    async def resources(self) -> Resources:
        return Resources(1000, self.bytes, 100, self.inodes)


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(budgets, "LOOK_SECONDS", 0.001)
    return Pool()


async def test_what_has_room_comes_in(pool: Any):
    async with budgets.watched(pool):
        pool.bytes, pool.inodes = 890, 80
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(("field", "amount"), [("bytes", 950), ("inodes", 95)])
async def test_what_has_none_is_cut_off(pool: Any, field: str, amount: int):
    with pytest.raises(TooLarge):
        async with budgets.watched(pool):
            setattr(pool, field, amount)
            await asyncio.sleep(60)


async def test_a_time_limit_of_the_block_stays_one(pool: Any):
    with pytest.raises(TimeoutError):
        async with budgets.watched(pool), asyncio.timeout(0.01):
            await asyncio.sleep(60)


async def test_errors_of_the_block_go_through_and_nobody_looks_any_more(pool: Any):
    with pytest.raises(KeyError):
        async with budgets.watched(pool):
            raise KeyError
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "budget of a pool" and not task.cancelling()]
