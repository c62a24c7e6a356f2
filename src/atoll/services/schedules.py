"""The schedules of snapshots, of instances and volumes alike."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import datetime

from atoll.config import timevalues
from atoll.config.timevalues import Schedule

AT_ONCE = 2
"""Snapshots that are taken or removed at the same time: more would only be in the way of whoever works on the host."""


def is_due(schedule: str, minutes: Sequence[datetime]) -> bool:
    """Whether one of the minutes is in it."""
    plan = read(schedule)
    return any(plan.due(minute) for minute in minutes)


@functools.lru_cache(maxsize=1024)
def read(text: str) -> Schedule:
    """The schedule; one that could never have been set, from a row of other origin, is none."""
    try:
        return timevalues.parse_schedule(text)
    except ValueError:
        return Schedule()
