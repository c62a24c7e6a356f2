"""Limits to how fast something goes, on a clock of their own."""

from __future__ import annotations

import asyncio
import time

import pytest

from atoll.host.pace import Pace


class Clock:
    """Goes on by what is slept."""

    def __init__(self) -> None:
        self.now = 1000.0

    async def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: found.now)
    monkeypatch.setattr(asyncio, "sleep", found.sleep)
    return found


async def test_no_more_than_the_rate(clock: Clock) -> None:
    pace = Pace(100)
    for size in (50, 250, 0, 100):
        await pace.take(size)
    assert clock.now == pytest.approx(1004)


async def test_time_that_was_not_used_is_not_made_up_for(clock: Clock) -> None:
    pace = Pace(100)
    await pace.take(100)
    clock.now += 60
    await pace.take(100)
    assert clock.now == pytest.approx(1062)


async def test_no_limit(clock: Clock) -> None:
    await Pace(0).take(1 << 40)
    assert clock.now == 1000
