from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.config import timevalues
from atoll.config.timevalues import Expiry

NOON = datetime(2024, 1, 31, 12, 0, tzinfo=UTC)  # a Wednesday


def test_expiry_counts_every_unit() -> None:
    assert timevalues.parse_expiry("5S 1M 2H 3d 4w 5m 6y") == Expiry(seconds=7265, days=31, months=77)
    assert timevalues.parse_expiry("1H2M") == Expiry(seconds=3720)


def test_expiry_moves_by_the_calendar() -> None:
    assert timevalues.parse_expiry("1d").after(NOON) == NOON + timedelta(days=1)
    assert timevalues.parse_expiry("1m").after(NOON) == datetime(2024, 3, 2, 12, 0, tzinfo=UTC)
    assert timevalues.parse_expiry("11m").after(NOON) == datetime(2024, 12, 31, 12, 0, tzinfo=UTC)
    assert timevalues.parse_expiry("1y 1M").after(NOON) == datetime(2025, 1, 31, 12, 1, tzinfo=UTC)


@pytest.mark.parametrize("text", ["1", "d", "1x", "1d 2d", "1.5d", "-1d", "1 d", "1d,2H", "٣d", "9999y", "999999999w"])
def test_bad_expiry(text: str) -> None:
    with pytest.raises(ValueError, match="Invalid expiry expression"):
        timevalues.EXPIRY.read(text)


@pytest.mark.parametrize(
    ("line", "due"),
    [
        ("* * * * *", True),
        ("0 12 * * *", True),
        ("*/15 * * * *", True),
        ("1 * * * *", False),
        ("0 8-13 * jan wed", True),
        ("0 12 31 * *", True),
        ("0 12 30 * *", False),
        ("0 12 1 * wed", True),  # both day fields narrowed: one match is enough
        ("0 12 31 * mon", True),
        ("0 12 1 * mon", False),
        ("0 12 ? 1 3", True),
        ("0,30 12 * 1-6/5 *", True),
        ("0 12 * * 7", False),
        ("@daily", False),
        ("@never", False),
    ],
)
def test_schedule(line: str, due: bool) -> None:
    assert timevalues.parse_schedule(line).due(NOON) is due


def test_aliases_combine() -> None:
    schedule = timevalues.parse_schedule("@hourly, @startup")
    assert schedule.due(NOON)
    assert schedule.at_startup
    assert not schedule.due(NOON + timedelta(minutes=1))
    assert timevalues.parse_schedule("@weekly").due(datetime(2024, 2, 4, tzinfo=UTC))


@pytest.mark.parametrize("text", ["@startup, 10 2,5-8/2 * * *", "10 2,5-8/2 * * *,  @STARTUP", "@startup,@yearly, 10 2,5 * * *"])
def test_aliases_and_lines_combine(text: str) -> None:
    schedule = timevalues.parse_schedule(text)
    assert schedule.at_startup
    assert [schedule.due(NOON.replace(hour=hour, minute=10)) for hour in (2, 3, 5)] == [True, False, True]


@pytest.mark.parametrize("text", ["{{ creation_date|date:'2006-01-02' }}", "snap%d", "daily"])
def test_patterns(text: str) -> None:
    assert timevalues.PATTERN.read(text) == text


@pytest.mark.parametrize("text", ["%d-%d", "{{ x", "a b", "..", "{{ creation_date }}"])
def test_bad_patterns(text: str) -> None:
    with pytest.raises(ValueError):
        timevalues.PATTERN.read(text)


@pytest.mark.parametrize(
    "text",
    ["", "*", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "5-1 * * * *",
     "*/0 * * * *", "*-5 * * * *", "a * * * *", "@often", "@daily,", "@daily @weekly", "@never,@daily", "1,,2 * * * *"],
)  # fmt: skip
def test_bad_schedules(text: str) -> None:
    with pytest.raises(ValueError):
        timevalues.parse_schedule(text)


def test_a_volume_has_no_startup() -> None:
    assert timevalues.VOLUME_SCHEDULE.read("@daily") == timevalues.SCHEDULE.read("@daily")
    with pytest.raises(ValueError, match="@startup"):
        timevalues.VOLUME_SCHEDULE.read("@startup")


@given(st.text(alphabet="*?/-,0123456789 @abdmnsu"))
def test_any_text_is_a_schedule_or_a_value_error(text: str) -> None:
    try:
        timevalues.parse_schedule(text).due(NOON)
    except ValueError:
        pass


@given(st.text(alphabet="0123456789SMHdwmy "))
def test_any_expiry_keeps_within_what_datetime_holds(text: str) -> None:
    try:
        expiry = timevalues.parse_expiry(text)
    except ValueError:
        return
    assert expiry.after(NOON) >= NOON
