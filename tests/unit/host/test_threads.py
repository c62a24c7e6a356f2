"""Blocking work away from the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import weakref
from typing import Any

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
    go_on, ended = threading.Event(), threading.Event()

    def work() -> None:
        go_on.wait(30)
        ended.set()

    task = asyncio.create_task(threads.in_thread(work))
    for _ in range(cancellations):
        await asyncio.sleep(0.002)
        task.cancel()
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_what_nobody_gets_any_more_is_given_back() -> None:
    go_on, released = threading.Event(), list[str]()

    def obtain() -> str:
        go_on.wait(30)
        return "it"

    task = asyncio.create_task(threads.obtained(released.append, obtain))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not released
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert released == ["it"]
    assert (await threads.obtained(released.append, obtain), released) == ("it", ["it"])
    with pytest.raises(ZeroDivisionError):
        await threads.obtained(released.append, divmod, 1, 0)


async def test_a_thread_that_is_idle_is_used_again(until: Any) -> None:
    workers, together = threads.Workers("some", 3), threading.Barrier(3)
    try:
        for _ in range(5):
            await workers.submit(threading.get_ident)
            await until(lambda: workers._idle)  # it says so a moment after its answer
        assert workers._started == 1
        await asyncio.gather(*(workers.submit(together.wait, 30) for _ in range(6)))
        assert workers._started == 3
    finally:
        workers.stop()


async def test_one_thread_keeps_the_order_and_ends_when_told() -> None:
    workers, done = threads.Workers("one", 1), list[int]()
    calls = [workers.submit(done.append, number) for number in range(50)]
    calls[7].cancel()  # nobody waits for that one: it is done all the same
    thread = await workers.submit(threading.current_thread)
    assert done == list(range(50))
    workers.stop()
    await threads.in_thread(thread.join, 30)
    assert not thread.is_alive()


def test_the_end_of_a_loop_is_no_error_for_what_still_runs() -> None:
    workers, go_on = threads.Workers("one", 1), threading.Event()

    async def leave() -> None:
        workers.submit(go_on.wait, 30)

    async def look() -> int:
        return await workers.submit(lambda: 7)

    asyncio.run(leave())
    go_on.set()
    assert asyncio.run(look()) == 7
    workers.stop()


async def test_what_a_future_does_not_take_is_an_error_too() -> None:
    with pytest.raises(RuntimeError, match="StopIteration") as caught:
        await asyncio.wait_for(threads.in_thread(next, iter(())), 30)
    assert isinstance(caught.value.__cause__, StopIteration)


async def test_an_error_keeps_nothing_alive() -> None:
    """What a failed call was given, as a file, goes when its caller lets it go, not with the next collection."""

    class Thing:
        def fail(self) -> None:
            raise ZeroDivisionError

    async def attempt() -> weakref.ref[Thing]:
        thing = Thing()
        with contextlib.suppress(ZeroDivisionError):
            await threads.in_thread(thing.fail)
        return weakref.ref(thing)

    gc.disable()
    try:
        kept = await attempt()
        await threads.in_thread(int)  # its thread is done with the other call
        await asyncio.sleep(0)
        assert kept() is None
    finally:
        gc.enable()


async def test_a_thread_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asked is told, what was asked is not done, and the next one is served."""
    workers, done = threads.Workers("one", 1), list[int]()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", _refuse)
        with pytest.raises(RuntimeError):
            workers.submit(done.append, 1)
    await workers.submit(done.append, 2)
    workers.stop()
    assert done == [2]


def _refuse(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


async def test_waiting_keeps_nobody_from_working() -> None:
    release = threading.Event()
    waiting = [threads.waiting_thread(release.wait, 60) for _ in range(40)]
    assert await asyncio.wait_for(threads.in_thread(lambda: 1), 30) == 1
    release.set()
    assert all(await asyncio.gather(*waiting))
