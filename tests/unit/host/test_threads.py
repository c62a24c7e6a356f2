"""Blocking work away from the event loop."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from atoll.host import threads


async def test_results_and_errors_come_back() -> None:
    assert await threads.in_thread(divmod, 7, 2) == (3, 1)
    assert await threads.in_thread(int, "ff", base=16) == 255
    assert await threads.in_thread(threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await threads.in_thread(divmod, 1, 0)


@pytest.mark.parametrize("cancellations", [1, 2, 4])
async def test_who_is_cancelled_waits_for_the_end(cancellations: int) -> None:
    ended = threading.Event()

    def work() -> None:
        time.sleep(0.05)
        ended.set()

    task = asyncio.create_task(threads.in_thread(work))
    for _ in range(cancellations):
        await asyncio.sleep(0.002)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_waiting_keeps_nobody_from_working() -> None:
    release = threading.Event()
    waiting = [threads.waiting_thread(release.wait, 5) for _ in range(40)]
    assert await asyncio.wait_for(threads.in_thread(lambda: 1), 2) == 1
    release.set()
    assert all(await asyncio.gather(*waiting))
