"""What the daemon does by itself: jobs that run once a minute.

Each job is told which minutes of the wall clock passed since it was begun the last time, and decides what is due; no minute comes
twice. A job that takes longer than a minute is not begun again before it is done, and then gets all the minutes at once. What a
job raises is logged and keeps neither it nor the others from their next run.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from atoll.domain.errors import AtollError

log = logging.getLogger(__name__)

LONGEST_JUMP = 60
"""Minutes. After a longer jump of the clock (the host slept, its clock was set) only the last of them count; a clock that is set
back by more starts anew, one that is set back by less passes minutes that are done already."""

_LATE = 0.05
"""Seconds after the full minute, so that a timer that is early does not find the old one."""

Work = Callable[[Sequence[datetime]], Awaitable[None]]
"""Gets the minutes that passed, in the host's time zone, oldest first; none at the daemon's start."""


@dataclass(slots=True)
class _Job:
    name: str
    work: Work
    last: int | None = None
    """The last minute since the epoch that it was told."""
    task: asyncio.Task[None] | None = None


class Scheduler:
    """Jobs are added before `run`. `now` gives seconds since the epoch."""

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._jobs: list[_Job] = []

    def add(self, name: str, work: Work) -> None:
        """Run it at the daemon's start and then each minute."""
        self._jobs.append(_Job(name, work))

    async def run(self) -> None:
        """Until it is cancelled; jobs under way are cancelled with it."""
        try:
            while True:
                self.tick()
                await asyncio.sleep(60 - self._now() % 60 + _LATE)
        finally:
            tasks = [job.task for job in self._jobs if job.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def tick(self) -> None:
        """Begin every job that is not under way."""
        minute = int(self._now() // 60)
        for job in self._jobs:
            if job.task is None or job.task.done():
                job.task = asyncio.create_task(self._do(job, _passed(job, minute)), name=job.name)

    @staticmethod
    async def _do(job: _Job, minutes: Sequence[datetime]) -> None:
        try:
            await job.work(minutes)
        except AtollError as error:
            log.warning("%s: %s", job.name, error)
        except Exception:  # a defect in one job must not end what the daemon does by itself
            log.exception("%s failed", job.name)


def _passed(job: _Job, minute: int) -> list[datetime]:
    """The minutes after the job's last one, which is now this one."""
    last = job.last
    if last is None or minute < last - LONGEST_JUMP:
        job.last = minute
        return []
    job.last = max(last, minute)
    first = max(last, minute - LONGEST_JUMP) + 1
    return [datetime.fromtimestamp(each * 60).astimezone() for each in range(first, minute + 1)]
