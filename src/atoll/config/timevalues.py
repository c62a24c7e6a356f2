"""Times in config values: expiry expressions and snapshot schedules."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from atoll.config.values import ValueType, quoted

if TYPE_CHECKING:
    from datetime import datetime

_EXPIRY_ITEM = r"\s*([0-9]{1,9})([SMHdwmy])"
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_CRON_ITEM = r"(\*|\?|[0-9a-z]{1,3})(?:-([0-9a-z]{1,3}))?(?:/([0-9]{1,2}))?"

_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@annually": "0 0 1 1 *",
    "@yearly": "0 0 1 1 *",
}


class Expiry(NamedTuple):
    """A span in calendar terms, as `1M 2H 3d 4w 5m 6y` says it."""

    seconds: int = 0
    days: int = 0
    months: int = 0

    def after(self, moment: datetime) -> datetime:
        """`moment` plus this span; a day that the target month lacks runs over into the next (31 Jan + 1m = 3 Mar)."""
        from datetime import timedelta

        years, month = divmod(moment.year * 12 + moment.month - 1 + self.months, 12)
        first = moment.replace(year=years, month=month + 1, day=1)
        return first + timedelta(days=moment.day - 1 + self.days, seconds=self.seconds)


class Cron(NamedTuple):
    """The five fields of a cron line as sets. `either_day`: both day fields are narrowed, so one match of them is enough."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool

    def matches(self, moment: datetime) -> bool:
        """Whether the minute of `moment` is one of this line's."""
        if moment.minute not in self.minutes or moment.hour not in self.hours or moment.month not in self.months:
            return False
        by_day, by_weekday = moment.day in self.days, moment.isoweekday() % 7 in self.weekdays
        return (by_day or by_weekday) if self.either_day else (by_day and by_weekday)


class Schedule(NamedTuple):
    """When to take snapshots: any of `lines`, and when the instance starts if `at_startup`. `@never` leaves both empty."""

    lines: tuple[Cron, ...] = ()
    at_startup: bool = False

    def due(self, moment: datetime) -> bool:
        """Whether a snapshot is due in the minute of `moment`."""
        return any(line.matches(moment) for line in self.lines)


def parse_expiry(text: str) -> Expiry:
    """`1M 2H 3d 4w 5m 6y`: minutes, hours, days, weeks, months, years (and `S` seconds), each at most once."""
    amounts: dict[str, int] = {}
    position, stripped = 0, text.rstrip()
    while position < len(stripped):
        match = re.match(_EXPIRY_ITEM, stripped[position:], re.ASCII)
        if match is None or match[2] in amounts:
            raise ValueError(f"Invalid expiry expression {quoted(text)}: expected one like 1M 2H 3d 4w 5m 6y")
        amounts[match[2]] = int(match[1])
        position += match.end()
    expiry = Expiry(
        seconds=amounts.get("S", 0) + 60 * amounts.get("M", 0) + 3600 * amounts.get("H", 0),
        days=amounts.get("d", 0) + 7 * amounts.get("w", 0),
        months=amounts.get("m", 0) + 12 * amounts.get("y", 0),
    )
    if expiry.seconds > 10**10 or expiry.days > 10**5 * 4 or expiry.months > 12 * 1000:
        raise ValueError(f"Invalid expiry expression {quoted(text)}: it is more than a thousand years away")
    return expiry


def parse_cron(text: str) -> Cron:
    """`<minute> <hour> <dom> <month> <dow>`, with ranges, steps, lists, and names of months and weekdays."""
    fields = text.lower().split()
    if len(fields) != 5:
        raise ValueError(f"Invalid schedule {quoted(text)}: expected 5 fields, found {len(fields)}")
    minute, hour, day, month, weekday = fields
    weekdays = _parse_cron_field(weekday, 0, 7, _WEEKDAYS, 0)
    return Cron(
        minutes=_parse_cron_field(minute, 0, 59),
        hours=_parse_cron_field(hour, 0, 23),
        days=_parse_cron_field(day, 1, 31),
        months=_parse_cron_field(month, 1, 12, _MONTHS, 1),
        weekdays=frozenset(number % 7 for number in weekdays),
        either_day=day[0] not in "*?" and weekday[0] not in "*?",
    )


def parse_schedule(text: str) -> Schedule:
    """Cron lines and `@` aliases, separated by commas with a space after each; between aliases the comma alone will do."""
    lines: list[Cron] = []
    aliases: list[str] = []
    for part in re.split(r",\s+", text.strip().lower()):
        if part.startswith("@"):
            aliases += (name.strip() for name in part.split(","))
        else:
            lines.append(parse_cron(part))
    if aliases == ["@never"] and not lines:
        return Schedule()
    unknown = [name for name in aliases if name not in _ALIASES and name != "@startup"]
    if unknown:
        raise ValueError(f"Invalid schedule alias {quoted(unknown[0])}")
    lines += (parse_cron(_ALIASES[name]) for name in aliases if name in _ALIASES)
    return Schedule(lines=tuple(lines), at_startup="@startup" in aliases)


def parse_volume_schedule(text: str) -> Schedule:
    """As parse_schedule, without `@startup`: a volume does not start."""
    schedule = parse_schedule(text)
    if schedule.at_startup:
        raise ValueError('Invalid schedule alias "@startup": a storage volume does not start')
    return schedule


def parse_pattern(text: str) -> str:
    """A template of snapshots' names; it is tried."""
    from atoll.domain import snapshot_names
    from atoll.domain.errors import AtollError

    try:
        snapshot_names.check(text)
    except AtollError as error:
        raise ValueError(error.message) from error
    return text


def _parse_cron_field(field: str, lowest: int, highest: int, names: tuple[str, ...] = (), first: int = 0) -> frozenset[int]:
    numbers: set[int] = set()
    for item in field.split(","):
        match = re.fullmatch(_CRON_ITEM, item, re.ASCII)
        if match is None:
            raise ValueError(f"Invalid schedule field {quoted(field)}")
        start, end, step = match.groups()
        if start in ("*", "?"):
            if end:
                raise ValueError(f"Invalid schedule field {quoted(field)}")
            low, high = lowest, highest
        else:
            low = _cron_number(start, names, first)
            high = _cron_number(end, names, first) if end else (highest if step else low)
        stride = int(step or 1)
        if not lowest <= low <= high <= highest or stride == 0:
            raise ValueError(f"Invalid schedule field {quoted(field)}: out of range {lowest} to {highest}")
        numbers.update(range(low, high + 1, stride))
    return frozenset(numbers)


def _cron_number(text: str, names: tuple[str, ...], first: int) -> int:
    if text in names:
        return names.index(text) + first
    if not text.isdigit():
        raise ValueError(f"Invalid schedule value {quoted(text)}")
    return int(text)


EXPIRY = ValueType("expiry", parse_expiry)
SCHEDULE = ValueType("schedule", parse_schedule, choices=(*_ALIASES, "@startup", "@never"))
VOLUME_SCHEDULE = ValueType("schedule", parse_volume_schedule, choices=(*_ALIASES, "@never"))
PATTERN = ValueType("pattern", parse_pattern)
