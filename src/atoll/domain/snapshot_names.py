"""Names of snapshots for which nobody gave one: by the pattern of `snapshots.pattern`.

A pattern is a template with the variable `creation_date`, and may have one `%d`: the highest number that snapshots have in that
place, plus one. A name that is taken gets such a number at its end.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from atoll.domain import names, templating
from atoll.domain.errors import BadRequest

DEFAULT = "snap%d"
_PLACE = "%d"
_LIMITS = templating.Limits(source=4096, output=1024, work=1000, seconds=0.2)


def choose(pattern: str, taken: Collection[str], now: datetime) -> str:
    """The name of the next snapshot; an empty pattern is the default. BadRequest for a pattern that is none, or gives no name."""
    text = templating.render(pattern or DEFAULT, {"creation_date": now}, limits=_LIMITS)
    if text.count(_PLACE) > 1:
        raise BadRequest(f"Snapshot pattern may contain {_PLACE!r} only once")
    if _PLACE not in text and text in taken:
        text = f"{text}-{_PLACE}"
    before, place, after = text.partition(_PLACE)
    return names.snapshot(f"{before}{_next_number(taken, before, after)}{after}" if place else text)


def check(pattern: str) -> None:
    """BadRequest unless the pattern gives names."""
    choose(pattern, (), datetime.now().astimezone())


def _next_number(taken: Collection[str], before: str, after: str) -> int:
    """One more than the highest number that stands between the two; 0 if there is none."""
    inner = (
        name[len(before) : len(name) - len(after)]
        for name in taken
        if name.startswith(before) and name.endswith(after) and len(name) > len(before) + len(after)
    )
    return max((int(number) for number in inner if number.isascii() and number.isdecimal() and len(number) < 10), default=-1) + 1
