"""Times as LXD writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.domain import clock


def test_now_has_one_shape_and_an_order() -> None:
    first, second = clock.rfc3339(), clock.rfc3339()
    assert len(first) == len("2026-01-01T00:00:00.000000Z")
    assert first <= second


@given(st.integers(1, 253402300799))
def test_whole_seconds_come_back(seconds: int) -> None:
    assert clock.parse(clock.date_or_never(seconds)) == seconds
    assert clock.parse(clock.rfc3339(seconds)) == pytest.approx(seconds, abs=1e-4)


def test_never() -> None:
    assert clock.date_or_never(0) == clock.date_or_never(-1) == clock.NEVER
    assert clock.parse(clock.NEVER) == clock.parse("") == 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:01Z", 1),
        ("1970-01-01T01:00:01+01:00", 1),
        ("1970-01-01T00:00:01", 1),
        ("1970-01-01T00:00:01.500000000Z", 1.5),
        ("1970-01-01T00:00:01.123456789Z", 1.123456),
    ],
)
def test_forms(text: str, seconds: float) -> None:
    assert clock.parse(text) == pytest.approx(seconds)


def test_there_is_no_time_that_cannot_be_written() -> None:
    assert clock.rfc3339(clock.parse("9999-12-31T23:59:59Z")).startswith("9999")
    with pytest.raises(ValueError, match="9999"):
        clock.parse("9999-12-31T23:59:59-14:00")


@given(st.text(max_size=40))
def test_any_text_is_a_time_or_a_value_error(text: str) -> None:
    try:
        assert isinstance(clock.parse(text), float)
    except ValueError:
        pass
