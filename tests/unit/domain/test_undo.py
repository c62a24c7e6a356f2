"""Undo steps: all of them, last first, whatever happens to them or to who waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest

from atoll.domain.undo import Reverter


class Trace:
    """Steps that write down their names."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def plain(self, name: str) -> None:
        self.done.append(name)

    async def slow(self, name: str) -> None:
        await asyncio.sleep(0.02)
        self.done.append(name)

    def failing(self, error: BaseException) -> Callable[[], None]:
        def step() -> None:
            raise error

        return step

    async def cancelled(self) -> None:
        raise asyncio.CancelledError


@pytest.fixture
def trace() -> Trace:
    return Trace()


async def test_last_first_and_only_without_success(trace: Trace) -> None:
    with pytest.raises(ZeroDivisionError):
        async with Reverter("test") as undo:
            undo.add(trace.plain, "a")
            undo.add(trace.slow, "b")
            undo.add(trace.plain, "c")
            raise ZeroDivisionError
    assert trace.done == ["c", "b", "a"]
    async with Reverter("test") as undo:
        undo.add(trace.plain, "d")
        undo.success()
    assert trace.done == ["c", "b", "a"]
    async with Reverter("test") as undo:
        undo.add(trace.plain, "e")
    assert trace.done[-1] == "e"


async def test_steps_that_fail_keep_no_other_from_running(trace: Trace, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ZeroDivisionError):
        async with Reverter("test") as undo:
            undo.add(trace.plain, "a")
            undo.add(trace.failing(ValueError("x")))
            undo.add(trace.cancelled)
            undo.add(trace.failing(asyncio.CancelledError()))
            undo.add(trace.plain, "b")
            raise ZeroDivisionError
    assert trace.done == ["b", "a"]
    assert len(caplog.records) == 3


async def test_a_stuck_step_is_given_up(trace: Trace) -> None:
    async with Reverter("test", step_seconds=0.02) as undo:
        undo.add(trace.plain, "a")
        undo.add(asyncio.sleep, 60)
    assert trace.done == ["a"]


async def test_any_awaitable_is_awaited(trace: Trace) -> None:
    async with Reverter("test") as undo:
        undo.add(lambda: asyncio.ensure_future(trace.slow("task")))
        undo.add(lambda: asyncio.gather(trace.slow("x"), trace.slow("y")))
    assert sorted(trace.done) == ["task", "x", "y"]


@pytest.mark.parametrize("cancellations", [1, 2, 5])
async def test_cancellation_waits_for_the_undo(trace: Trace, cancellations: int) -> None:
    began = asyncio.Event()

    async def work() -> None:
        async with Reverter("test") as undo:
            undo.add(trace.slow, "a")
            undo.add(trace.slow, "b")
            began.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await began.wait()
    for _ in range(cancellations):
        task.cancel()
        await asyncio.sleep(0.005)
    with suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert trace.done == ["b", "a"]
