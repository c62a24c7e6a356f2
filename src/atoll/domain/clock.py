"""Times as LXD writes them: RFC 3339 in UTC, nanosecond field trimmed."""

from __future__ import annotations

from datetime import UTC, datetime

NEVER = "0001-01-01T00:00:00Z"
"""Go's zero time, which LXD's clients read as `never`."""

LATEST = 253402300799
"""Seconds: the end of the year 9999, after which neither Go's JSON nor Python's datetime has a time."""


def rfc3339(seconds: float | None = None) -> str:
    """That moment, or now; with microseconds, so that two objects made in one second keep their order."""
    moment = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def shown(text: str) -> str:
    """A kept moment as clients get it: `NEVER` for an empty one, whole seconds without a fraction."""
    return text.replace(".000000Z", "Z") or NEVER


def date_or_never(seconds: int) -> str:
    """A date kept as seconds, 0 meaning never."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds > 0 else NEVER


def parse(text: str) -> float:
    """Seconds of an RFC 3339 text; 0 for an empty one or `NEVER`. ValueError if it is not a time, or one after `LATEST`."""
    if not text or text == NEVER:
        return 0.0
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if seconds >= LATEST + 1:
        raise ValueError(f"{text!r} is after the year 9999")
    return seconds
