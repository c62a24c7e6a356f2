"""The scheduler: what minutes jobs are told, whatever the clock does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

import pytest

from atoll.domain.errors import HostError
from atoll.services.scheduler import LONGEST_JUMP, Scheduler

START = 28_000_000 * 60.0
"""A full minute since the epoch, in seconds."""


class Clock:
    """What the scheduler takes for the time; and a job that notes the minutes that it is told, relative to the start."""

    def __init__(self) -> None:
        self.seconds = START
        self.told: list[list[int]] = []
        self.scheduler = Scheduler(now=lambda: self.seconds)

    async def note(self, minutes: Sequence[datetime]) -> None:
        """The job."""
        self.told.append([int((minute.timestamp() - START) / 60) for minute in minutes])

    async def tick(self, minutes: float) -> None:
        """It is now that many minutes after the start."""
        self.seconds = START + 60 * minutes
        self.scheduler.tick()
        for _ in range(3):
            await asyncio.sleep(0)


@pytest.fixture
def clock() -> Clock:
    made = Clock()
    made.scheduler.add("note", made.note)
    return made


async def test_each_minute_comes_once(clock: Clock) -> None:
    for minute in (0, 1, 1.5, 2, 4):
        await clock.tick(minute)
    assert clock.told == [[], [1], [], [2], [3, 4]]


async def test_a_clock_that_is_set_back_a_little_repeats_nothing(clock: Clock) -> None:
    for minute in (0, 10, 5, 9, 10, 11):
        await clock.tick(minute)
    assert clock.told == [[], list(range(1, 11)), [], [], [], [11]]


async def test_a_clock_that_is_set_back_far_starts_anew(clock: Clock) -> None:
    for minute in (0, -10_000, -9_999):
        await clock.tick(minute)
    assert clock.told == [[], [], [-9_999]]


async def test_after_a_long_sleep_the_last_hour_counts(clock: Clock) -> None:
    await clock.tick(0)
    await clock.tick(100_000)
    assert clock.told == [[], list(range(100_001 - LONGEST_JUMP, 100_001))]


async def test_a_slow_job_is_not_begun_twice_and_hears_what_it_missed(clock: Clock) -> None:
    go_on, began = asyncio.Event(), 0
    heard: list[int] = []

    async def slow(minutes: Sequence[datetime]) -> None:
        nonlocal began
        began += 1
        heard.append(len(minutes))
        await go_on.wait()

    clock.scheduler.add("slow", slow)
    for minute in (0, 1, 2):
        await clock.tick(minute)
    assert (began, clock.told) == (1, [[], [1], [2]])
    go_on.set()
    await clock.tick(2)
    await clock.tick(3)
    assert heard == [0, 3]


async def test_a_failing_job_disturbs_nobody(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    async def refused(_: Sequence[datetime]) -> None:
        raise HostError("no space")

    async def defective(_: Sequence[datetime]) -> None:
        raise ZeroDivisionError

    clock.scheduler.add("refused", refused)
    clock.scheduler.add("defective", defective)
    await clock.tick(0)
    await clock.tick(1)
    assert clock.told == [[], [1]]
    assert [record.message for record in caplog.records] == ["refused: no space", "defective failed"] * 2


async def test_it_ends_with_its_jobs(clock: Clock) -> None:
    ended = asyncio.Event()

    async def endless(_: Sequence[datetime]) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    clock.scheduler.add("endless", endless)
    running = asyncio.create_task(clock.scheduler.run())
    await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended.is_set()
