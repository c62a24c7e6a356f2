"""Locks by name."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from atoll.services.locks import KeyedLocks


def is_forgotten(locks: KeyedLocks) -> bool:
    return not locks._entries


async def test_one_holder_per_key() -> None:
    locks, inside, most = KeyedLocks(), 0, 0

    async def work() -> None:
        nonlocal inside, most
        async with locks.hold("a"):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(work() for _ in range(50)))
    assert most == 1
    assert is_forgotten(locks)


async def test_other_keys_do_not_wait() -> None:
    locks = KeyedLocks()
    async with locks.hold("a"):
        async with asyncio.timeout(30), locks.hold("b"):
            assert locks.is_held("a") and locks.is_held("b") and not locks.is_held("c")
    assert not locks.is_held("a")


async def test_one_that_is_let_go_is_held_by_the_next_at_once() -> None:
    locks = KeyedLocks()
    async with locks.hold("a"):
        follower = asyncio.create_task(enter(locks))
        await asyncio.sleep(0)
    assert locks.is_held("a"), "whoever took it now would have to wait"
    await follower
    assert is_forgotten(locks)


async def enter(locks: KeyedLocks) -> None:
    async with locks.hold("a"):
        return


async def test_many_keys_in_any_order_never_deadlock() -> None:
    locks, chance, keys = KeyedLocks(), random.Random(1), list("abcd")

    async def work() -> None:
        for _ in range(20):
            async with locks.hold(*chance.choices(keys, k=3)):
                await asyncio.sleep(0)

    async with asyncio.timeout(30):
        await asyncio.gather(*(work() for _ in range(10)))
    assert is_forgotten(locks)


async def test_who_gives_up_waiting_takes_nothing_with_it(until: Any) -> None:
    locks = KeyedLocks()

    async def want(*keys: str) -> None:
        async with locks.hold(*keys):
            await asyncio.sleep(60)

    async with locks.hold("b"):
        waiting = [asyncio.create_task(want("a", "b")), asyncio.create_task(want("b"))]
        await until(lambda: locks.is_held("a"))
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert not locks.is_held("a") and locks.is_held("b")
    assert is_forgotten(locks)


async def test_an_error_or_cancellation_inside_lets_go(until: Any) -> None:
    locks = KeyedLocks()
    with pytest.raises(ZeroDivisionError):
        async with locks.hold("a", "b"):
            raise ZeroDivisionError
    held = asyncio.Event()

    async def work() -> None:
        async with locks.hold("a"):
            held.set()
            await asyncio.sleep(60)

    holder, follower = asyncio.create_task(work()), asyncio.create_task(work())
    await held.wait()
    holder.cancel()
    await asyncio.gather(holder, return_exceptions=True)
    await until(lambda: locks.is_held("a"))
    follower.cancel()
    await asyncio.gather(follower, return_exceptions=True)
    assert is_forgotten(locks)
