"""The filters of templates: pure functions of a value and at most one argument."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from urllib.parse import quote

from atoll.domain.errors import BadRequest
from atoll.domain.templating import go_time, values
from atoll.domain.templating.values import Plain, Value

Filter = Callable[[Value, Value], Value]

_WIDEST = 4096
_ESCAPED = {"&": "&amp;", ">": "&gt;", "<": "&lt;", '"': "&quot;", "'": "&#39;"}


def find(name: str) -> Filter:
    """The filter of that name. BadRequest if there is none."""
    found = _FILTERS.get(name)
    if found is None:
        raise BadRequest(f"there is no filter {name[:40]!r}")
    return found


def _of_text(change: Callable[[str], Plain]) -> Filter:
    return lambda value, _: change(values.to_text(value))


def _add(value: Value, argument: Value) -> Value:
    if isinstance(value, (int, float)) and isinstance(argument, (int, float)):
        return values.bounded(value + argument)
    return values.to_text(value) + values.to_text(argument)


def _capitalise(text: str) -> str:
    return text[:1].upper() + text[1:]


def _cut(value: Value, argument: Value) -> Value:
    return values.to_text(value).replace(values.to_text(argument), "")


def _date(value: Value, argument: Value) -> Value:
    layout = values.to_text(argument)
    if not isinstance(value, datetime):
        raise BadRequest("date takes a moment")
    if len(layout) > _WIDEST:
        raise BadRequest(f"a layout may have {_WIDEST} characters at most")
    return go_time.show(value, layout)


def _default(value: Value, argument: Value) -> Value:
    return value if values.is_true(value) else argument


def _default_if_none(value: Value, argument: Value) -> Value:
    return argument if value is None else value


def _divisible(value: Value, argument: Value) -> Value:
    divisor = values.to_integer(argument)
    return divisor != 0 and values.to_integer(value) % divisor == 0


def _first(value: Value, _: Value) -> Value:
    return value[0] if isinstance(value, (str, Sequence)) and value else ""


def _last(value: Value, _: Value) -> Value:
    return value[-1] if isinstance(value, (str, Sequence)) and value else ""


def _join(value: Value, argument: Value) -> Value:
    if not isinstance(value, (str, Sequence)):
        return value
    return values.to_text(argument).join(values.to_text(each) for each in value)


def _split(value: Value, argument: Value) -> Value:
    separator = values.to_text(argument)
    text = values.to_text(value)
    return text.split(separator) if separator else list(text)


def _slice(value: Value, argument: Value) -> Value:
    start, colon, end = values.to_text(argument).partition(":")
    if not colon or not isinstance(value, (str, Sequence)):
        raise BadRequest("slice takes a text or list, and an argument like '1:3'")
    return value[values.to_integer(start) if start else None : values.to_integer(end) if end else None]


def _truncate(value: Value, argument: Value) -> Value:
    text, length = values.to_text(value), values.to_integer(argument)
    if length >= len(text):
        return text
    return text[: length - 3] + "..." if length >= 3 else text[: max(length, 0)]


def _padded(pad: Callable[[str, int], str]) -> Filter:
    def apply(value: Value, argument: Value) -> Value:
        width = values.to_integer(argument)
        if width > _WIDEST:
            raise BadRequest(f"a width may be {_WIDEST} at most")
        return pad(values.to_text(value), width)

    return apply


def _yes_no(value: Value, argument: Value) -> Value:
    words = values.to_text(argument).split(",") if argument is not None else ["yes", "no", "maybe"]
    if len(words) not in (2, 3):
        raise BadRequest("yesno takes two or three words")
    return words[0] if values.is_true(value) else words[-1] if value is None else words[1]


def _escape(text: str) -> str:
    return "".join(_ESCAPED.get(letter, letter) for letter in text)


def _add_slashes(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "\\\"'" else letter for letter in text)


def _same(value: Value, _: Value) -> Value:
    return value


_FILTERS: Mapping[str, Filter] = {
    "add": _add,
    "addslashes": _of_text(_add_slashes),
    "capfirst": _of_text(_capitalise),
    "center": _padded(str.center),
    "cut": _cut,
    "date": _date,
    "default": _default,
    "default_if_none": _default_if_none,
    "divisibleby": _divisible,
    "e": _of_text(_escape),
    "escape": _of_text(_escape),
    "first": _first,
    "float": lambda value, _: values.to_float(value),
    "integer": lambda value, _: values.to_integer(value),
    "join": _join,
    "last": _last,
    "length": lambda value, _: values.size(value),
    "length_is": lambda value, argument: values.size(value) == values.to_integer(argument),
    "ljust": _padded(str.ljust),
    "lower": _of_text(str.lower),
    "rjust": _padded(str.rjust),
    "safe": _same,
    "slice": _slice,
    "split": _split,
    "time": _date,
    "title": _of_text(lambda text: text.lower().title()),
    "truncatechars": _truncate,
    "upper": _of_text(str.upper),
    "urlencode": _of_text(lambda text: quote(text, safe="")),
    "wordcount": _of_text(lambda text: len(text.split())),
    "yesno": _yes_no,
}
