"""Sizes, bit rates, percentages and disk rates, in the notation of LXD's unit table.

Decimal suffixes count in thousands (`kB`, `MB`, `kbit`), binary ones in 1024 (`KiB`, `MiB`, `Kibit`). Suffixes are
case-sensitive, numbers are whole, and a bare number is bytes (or bits). Every parser raises ValueError with a message
that is fit to be shown.
"""

from __future__ import annotations

import re
from typing import NamedTuple

INT64_MAX = 2**63 - 1

_BYTES: dict[str, int] = {"": 1, "B": 1, "bytes": 1}
_BITS: dict[str, int] = {"": 1, "bit": 1}
for _power, _letter in enumerate("KMGTPE", start=1):
    _decimal = "k" if _letter == "K" else _letter
    _BYTES[f"{_decimal}B"] = _BITS[f"{_decimal}bit"] = 1000**_power
    _BYTES[f"{_letter}iB"] = _BITS[f"{_letter}ibit"] = 1024**_power

_DECIMAL = ("kB", "MB", "GB", "TB", "PB", "EB")
_QUANTITY = r"([0-9]{1,19}) ?([A-Za-z]*)"
_IOPS = r"([0-9]{1,18})iops"


class Percent(NamedTuple):
    """A share of something of the host: `50%` of the memory."""

    value: int

    def of(self, total: int) -> int:
        """The share of `total`, rounded down."""
        return total * self.value // 100


class DiskRate(NamedTuple):
    """A limit of a disk: bytes per second or operations per second; exactly one of the two is above zero."""

    bytes_per_second: int = 0
    iops: int = 0


def parse_size(text: str) -> int:
    """Bytes of `10GB`, `5GiB`, `512`, `10 bytes`."""
    return _parse_quantity(text, _BYTES, "size")


def parse_bitrate(text: str) -> int:
    """Bits (per second) of `10Mbit`, `1Gibit`, `9600`."""
    return _parse_quantity(text, _BITS, "bit rate")


def parse_percent(text: str) -> Percent:
    """`1%` to `100%`."""
    digits = text.removesuffix("%")
    if digits == text or not digits.isascii() or not digits.isdigit() or not 1 <= int(digits[:4]) <= 100:
        raise ValueError(f'Invalid percentage "{text}": it must be between 1% and 100%')
    return Percent(int(digits))


def parse_size_or_percent(text: str) -> int | Percent:
    """A size in bytes, or a Percent of whatever the caller counts in."""
    return parse_percent(text) if text.endswith("%") else parse_size(text)


def parse_disk_rate(text: str) -> DiskRate:
    """`100iops`, or a size that counts per second (`10MB`)."""
    match = re.fullmatch(_IOPS, text, re.ASCII)
    rate = DiskRate(iops=int(match[1])) if match else DiskRate(bytes_per_second=parse_size(text))
    if rate == DiskRate():
        raise ValueError(f'Invalid disk limit "{text}": it must be above zero')
    return rate


def format_size(count: int, *, precision: int = 2) -> str:
    """Bytes for people, in decimal units: `1.50MB`."""
    if count < 1000:
        return f"{count}B"
    value, index = count / 1000, 0
    while value >= 1000 and index < len(_DECIMAL) - 1:
        value, index = value / 1000, index + 1
    return f"{value:.{precision}f}{_DECIMAL[index]}"


def _parse_quantity(text: str, units: dict[str, int], kind: str) -> int:
    match = re.fullmatch(_QUANTITY, text, re.ASCII)
    if match is None or (" " in text and match[2] != "bytes"):
        raise ValueError(f'Invalid {kind} "{text}"')
    factor = units.get(match[2])
    if factor is None:
        raise ValueError(f'Invalid {kind} "{text}": unknown unit "{match[2]}"')
    count = int(match[1]) * factor
    if count > INT64_MAX:
        raise ValueError(f'Invalid {kind} "{text}": it is too large')
    return count
