"""Times and sizes as people read them."""

from __future__ import annotations

import time

NEVER = ""


def seconds(stamp: str) -> int | None:
    """Unix time of an RFC 3339 stamp; None for an empty one and for the zero times the API uses for "never"."""
    if len(stamp) < 20 or stamp.startswith(("0001-01-01", "1970-01-01T00:00:00")):
        return None
    year, month, day = int(stamp[:4]), int(stamp[5:7]), int(stamp[8:10])
    hour, minute, second = int(stamp[11:13]), int(stamp[14:16]), int(stamp[17:19])
    total = _days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second
    zone = stamp[19:].lstrip(".0123456789")
    if zone[:1] in ("+", "-"):
        offset = int(zone[1:3]) * 3600 + int(zone[4:6]) * 60
        total += offset if zone[0] == "-" else -offset
    return total


def _days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 of a Gregorian date (years counted from March, so that leap days come last)."""
    year -= month < 3
    month = (month + 9) % 12
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * month + 2) // 5 + day - 719469


def minute(stamp: str, never: str = NEVER) -> str:
    """`2026/11/22 08:13 UTC`, in the local time zone."""
    moment = seconds(stamp)
    return never if moment is None else time.strftime("%Y/%m/%d %H:%M %Z", time.localtime(moment))


def long(stamp: str) -> str:
    """`Nov 22, 2026 at 8:13am (UTC)`, in UTC."""
    moment = time.gmtime(seconds(stamp) or 0)
    clock = f"{moment.tm_hour % 12 or 12}:{moment.tm_min:02d}{'pm' if moment.tm_hour >= 12 else 'am'}"
    return f"{time.strftime('%b', moment)} {moment.tm_mday}, {moment.tm_year} at {clock} (UTC)"


def binary_size(count: int, digits: int = 2) -> str:
    """`1.14MiB`; plain bytes below one KiB."""
    return _size(count, 1024, ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB"), digits)


def decimal_size(count: int, digits: int = 2) -> str:
    """`1.20MB`; plain bytes below one kB."""
    return _size(count, 1000, ("kB", "MB", "GB", "TB", "PB", "EB"), digits)


def _size(count: int, base: int, units: tuple[str, ...], digits: int) -> str:
    if count < base:
        return f"{count}B"
    power = 1
    while power < len(units) and count >= base ** (power + 1):
        power += 1
    return f"{count / base**power:.{digits}f}{units[power - 1]}"
