"""When things expire: from a span in a configuration to the text that a row keeps."""

from __future__ import annotations

from datetime import UTC, datetime

from atoll.config.timevalues import Expiry
from atoll.domain import clock


def after_now(span: Expiry | None) -> str:
    """The moment that is so far away; empty, for never, without a span."""
    return "" if span is None else clock.rfc3339(span.after(datetime.now(UTC)).timestamp())
