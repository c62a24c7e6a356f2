"""When snapshots and backups expire, as clients say it."""

from __future__ import annotations

from atoll.domain import clock
from atoll.domain.errors import BadRequest


def read(text: str | None) -> str:
    """An expiry as it is kept: empty for never, which Go's zero time is too. BadRequest for what is no time."""
    try:
        seconds = clock.parse(text or "")
        return clock.rfc3339(seconds) if seconds > 0 else ""
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"expires_at: {(text or '')[:40]!r} is not a time") from error
