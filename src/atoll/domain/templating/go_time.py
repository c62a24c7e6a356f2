"""Go's way to write moments: a layout shows how the reference moment, Mon Jan 2 15:04:05 MST 2006, shall look."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

_PARTS = (
    r"January|Jan(?![a-z])|Monday|Mon(?![a-z])|MST|002|0[1-6]|15|1|2006|__2|_2(?!006)|2|3|4|5|PM|pm"
    r"|[-Z]07(?:00(?:00)?|:00(?::00)?)?|[.,](?:0+|9+)(?![0-9])"
)
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_MOST_DIGITS = 9


def show(moment: datetime, layout: str) -> str:
    """`moment` as the layout shows it; what is no part of a moment stays as it is. The moment knows its time zone."""
    return re.sub(_PARTS, lambda part: _part(moment, part[0]), layout)


def default(moment: datetime) -> str:
    """As Go prints a moment without a layout."""
    return show(moment, "2006-01-02 15:04:05.999999999 -0700 MST")


def _part(moment: datetime, part: str) -> str:
    if plain := _PLAIN.get(part):
        return plain(moment)
    if part[0] in ".,":
        return _fraction(moment, part)
    return _offset(moment.utcoffset() or timedelta(), part)


def _fraction(moment: datetime, part: str) -> str:
    """As many digits as the part has; those of nines lose zeros at their end."""
    digits = f"{moment.microsecond * 1000:09}"[: len(part) - 1].ljust(min(len(part) - 1, _MOST_DIGITS), "0")
    if part[1] == "9":
        digits = digits.rstrip("0")
    return f"{part[0]}{digits}" if digits else ""


def _offset(offset: timedelta, part: str) -> str:
    """East of Greenwich: `-07` stands for hours, `:00` for minutes and for seconds; with Z that letter is UTC."""
    if part[0] == "Z" and not offset:
        return "Z"
    minutes, seconds = divmod(abs(int(offset.total_seconds())), 60)
    values = [f"{minutes // 60:02}", f"{minutes % 60:02}", f"{seconds:02}"]
    shown = values[: len(part.replace(":", "")) // 2]
    return ("-" if offset < timedelta() else "+") + (":" if ":" in part else "").join(shown)


def _zone(moment: datetime) -> str:
    return moment.tzname() or "UTC"


_PLAIN: Mapping[str, Callable[[datetime], str]] = {
    "January": lambda moment: _MONTHS[moment.month - 1],
    "Jan": lambda moment: _MONTHS[moment.month - 1][:3],
    "1": lambda moment: str(moment.month),
    "01": lambda moment: f"{moment.month:02}",
    "Monday": lambda moment: _DAYS[moment.weekday()],
    "Mon": lambda moment: _DAYS[moment.weekday()][:3],
    "2": lambda moment: str(moment.day),
    "_2": lambda moment: f"{moment.day:2}",
    "02": lambda moment: f"{moment.day:02}",
    "__2": lambda moment: f"{moment.timetuple().tm_yday:3}",
    "002": lambda moment: f"{moment.timetuple().tm_yday:03}",
    "15": lambda moment: f"{moment.hour:02}",
    "3": lambda moment: str(moment.hour % 12 or 12),
    "03": lambda moment: f"{moment.hour % 12 or 12:02}",
    "4": lambda moment: str(moment.minute),
    "04": lambda moment: f"{moment.minute:02}",
    "5": lambda moment: str(moment.second),
    "05": lambda moment: f"{moment.second:02}",
    "2006": lambda moment: f"{moment.year:04}",
    "06": lambda moment: f"{moment.year % 100:02}",
    "PM": lambda moment: "PM" if moment.hour >= 12 else "AM",
    "pm": lambda moment: "pm" if moment.hour >= 12 else "am",
    "MST": _zone,
}
