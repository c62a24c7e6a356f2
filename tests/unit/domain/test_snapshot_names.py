"""Names of snapshots by pattern, and Go's layouts of moments in them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.domain import names, snapshot_names
from atoll.domain.errors import AtollError, BadRequest
from atoll.domain.templating import go_time

NOW = datetime(2026, 1, 2, 15, 4, 5, 120_000, UTC)


@pytest.mark.parametrize(
    ("pattern", "taken", "name"),
    [
        ("", (), "snap0"),
        ("", ("snap0", "other"), "snap1"),
        ("", ("snap7", "snap2", "snap0"), "snap8"),  # the highest, not the first that is free
        ("", ("snap", "snapx", "snap-1", "snap1x"), "snap0"),
        ("a%d-b", ("a3-b", "a4", "4-b"), "a4-b"),
        ("fixed", (), "fixed"),
        ("fixed", ("fixed",), "fixed-0"),
        ("fixed", ("fixed", "fixed-0", "fixed-3"), "fixed-4"),
        ("{{ creation_date|date:'2006-01-02_15-04-05' }}", (), "2026-01-02_15-04-05"),
        ("{{ creation_date | time:'060102' }}-%d", ("260102-0",), "260102-1"),
        ("snap%d", ("snap9999999999999999999999",), "snap0"),  # no number that anybody counted up to
    ],
)
def test_choice(pattern: str, taken: tuple[str, ...], name: str) -> None:
    assert snapshot_names.choose(pattern, taken, NOW) == name


@pytest.mark.parametrize(
    "pattern",
    [
        "%d%d", "..", ".", "a/b", "a b", "-a", "a\nb", "a\x00b", "x" * 300, "x" * 70_000, "{{", "{{ 1|nothing }}",
        "{{ creation_date }}",  # has spaces
        "{{ 'x'|date:'2006' }}",
        "{{ 'a'|center:99999999 }}",
        "{% for a in 'aaaaaaaaaa' %}{% for b in 'aaaaaaaaaa' %}{% for c in 'aaaaaaaaaa' %}x{% endfor %}{% endfor %}{% endfor %}",
        "{% if a %}", "{{ creation_date.year }}", "{{ ''.__class__ }}",
    ],
)  # fmt: skip
def test_patterns_that_give_no_name(pattern: str) -> None:
    with pytest.raises(BadRequest):
        snapshot_names.choose(pattern, (), NOW)


@given(st.text(alphabet="{}%|:'\"d snap.date_creation(),0123", max_size=60))
def test_any_pattern_gives_a_valid_name_or_is_refused(pattern: str) -> None:
    try:
        name = snapshot_names.choose(pattern, ("snap0",), NOW)
    except AtollError:
        return
    assert names.snapshot(name) == name


INDIA = timezone(timedelta(hours=5, minutes=30), "IST")
WEST = timezone(-timedelta(hours=9, minutes=30, seconds=15))


@pytest.mark.parametrize(
    ("layout", "zone", "shown"),
    [
        ("2006-01-02T15:04:05Z07:00", UTC, "2026-01-02T15:04:05Z"),
        ("2006-01-02T15:04:05Z07:00", INDIA, "2026-01-02T15:04:05+05:30"),
        ("-07 -0700 -07:00 -070000 -07:00:00", WEST, "-09 -0930 -09:30 -093015 -09:30:15"),
        ("Mon, 02 Jan 2006 15:04:05 MST", INDIA, "Fri, 02 Jan 2026 15:04:05 IST"),
        ("Monday January _2 3:4:5PM 06", UTC, "Friday January  2 3:4:5PM 26"),
        ("03pm 1/2 __2 002", UTC, "03pm 1/2   2 002"),
        ("05.000 05,000000 05.999 05.99999", UTC, "05.120 05,120000 05.12 05.12"),
        ("_2006 Month Janet v1.000", UTC, "_2026 Month Janet v1.120"),
        ("no time", UTC, "no time"),
    ],
)
def test_layouts(layout: str, zone: timezone, shown: str) -> None:
    assert go_time.show(NOW.replace(tzinfo=zone), layout) == shown


def test_a_moment_without_a_layout() -> None:
    assert go_time.default(NOW) == "2026-01-02 15:04:05.12 +0000 UTC"
    assert go_time.show(NOW.replace(hour=0, microsecond=0), "3:04 AM PM .999") == "12:04 AM AM "
