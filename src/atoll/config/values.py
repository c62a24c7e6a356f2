"""What a config value may be: a ValueType parses the text of one value and says how it is shown.

The values that belong to one field are beside this module: `netvalues` (addresses, interfaces), `timevalues` (expiry,
schedules), `hostvalues` (CPUs, id maps, device numbers, compression). A parser takes text that is already free of
control characters and raises ValueError with a message fit to be shown; it never sees the empty string, which means
"unset" everywhere. Patterns are kept as text: `re` compiles each on its first use, and importing costs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from atoll.config import units

LONGEST_LINE = 64 * 1024
LONGEST_BLOB = 1024 * 1024

_TRUE = frozenset(("true", "1", "yes", "on"))
_FALSE = frozenset(("false", "0", "no", "off"))
_INTEGER = r"[+-]?[0-9]{1,19}"
# Everything some consumer may take for a line end or a terminator, not CR and LF alone (security invariant I6).
_NOT_IN_A_LINE = r"[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]"
_NOT_IN_TEXT = r"[\x00\ud800-\udfff]"


@dataclass(frozen=True, slots=True)
class ValueType:
    """One kind of value. `name` is what documentation calls it; `choices` are what a shell may complete."""

    name: str
    parse: Callable[[str], Any]
    choices: tuple[str, ...] = ()
    multiline: bool = False

    def read(self, text: str) -> Any:
        """The typed value of `text`; ValueError where it is none. The one door to `parse`."""
        if self.multiline:
            if len(text) > LONGEST_BLOB:
                raise ValueError(f"Value is longer than {LONGEST_BLOB} characters")
            if re.search(_NOT_IN_TEXT, text, re.ASCII):
                raise ValueError("Value may not contain NUL or lone surrogates")
        else:
            if len(text) > LONGEST_LINE:
                raise ValueError(f"Value is longer than {LONGEST_LINE} characters")
            if re.search(_NOT_IN_A_LINE, text, re.ASCII):
                raise ValueError("Value may not contain line breaks or control characters")
        return self.parse(text)


def quoted(text: str) -> str:
    """`text` in double quotes for a message: cut to 80 characters, unprintable ones escaped."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text[:80])
    return f'"{shown}{"…" if len(text) > 80 else ""}"'


def parse_bool(text: str) -> bool:
    """True of true/1/yes/on, false of false/0/no/off, whatever the case."""
    lowered = text.lower()
    if lowered in _TRUE:
        return True
    if lowered in _FALSE:
        return False
    raise ValueError(f"Invalid value for a boolean {quoted(text)}")


def parse_integer(text: str) -> int:
    """A decimal integer that fits 64 bits."""
    if not re.fullmatch(_INTEGER, text, re.ASCII):
        raise ValueError(f"Invalid value for an integer {quoted(text)}")
    number = int(text)
    if not -units.INT64_MAX - 1 <= number <= units.INT64_MAX:
        raise ValueError(f"Invalid value for an integer {quoted(text)}: it does not fit 64 bits")
    return number


def integer(lowest: int | None = None, highest: int | None = None) -> ValueType:
    """An integer within bounds, both inclusive."""

    def parse(text: str) -> int:
        number = parse_integer(text)
        if lowest is not None and number < lowest:
            raise ValueError(f"Invalid value {quoted(text)}: it must be at least {lowest}")
        if highest is not None and number > highest:
            raise ValueError(f"Invalid value {quoted(text)}: it must be at most {highest}")
        return number

    return ValueType("integer", parse)


def one_of(*choices: str) -> ValueType:
    """One of a closed set of words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"Invalid value {quoted(text)} (not one of {', '.join(choices)})")
        return text

    return ValueType("string", parse, choices=choices)


def matching(name: str, pattern: str) -> ValueType:
    """Text that wholly matches a regular expression (ASCII classes)."""

    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError(f"Invalid {name} {quoted(text)}")
        return text

    return ValueType(name, parse)


def list_of(inner: ValueType) -> ValueType:
    """Values separated by commas, spaces around them ignored; typed as a tuple."""

    def parse(text: str) -> tuple[Any, ...]:
        return tuple(_parse_item(inner, item.strip(), text) for item in text.split(","))

    return ValueType(f"list of {inner.name}", parse, choices=inner.choices)


def or_word(inner: ValueType, *words: str) -> ValueType:
    """One of a few words (typed as that word), or else a value of `inner`."""

    def parse(text: str) -> Any:
        return text if text in words else inner.parse(text)

    return ValueType(inner.name, parse, choices=(*words, *inner.choices))


def _parse_item(inner: ValueType, item: str, text: str) -> Any:
    if not item:
        raise ValueError(f"Invalid list {quoted(text)}: it has an empty item")
    return inner.parse(item)


def _parse_any(text: str) -> str:
    return text


BOOL = ValueType("bool", parse_bool, choices=("true", "false"))
INTEGER = integer()
NATURAL = integer(0)
UINT32 = integer(0, 2**32 - 1)
PRIORITY = integer(0, 10)
TEXT = ValueType("string", _parse_any)
BLOB = ValueType("blob", _parse_any, multiline=True)
SIZE = ValueType("size", units.parse_size)
SIZE_OR_PERCENT = ValueType("size or percentage", units.parse_size_or_percent)
BITRATE = ValueType("bit rate", units.parse_bitrate)
DISK_RATE = ValueType("disk rate", units.parse_disk_rate)
UUID = matching("UUID", r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
FINGERPRINT = matching("fingerprint", r"[0-9a-f]{64}")
