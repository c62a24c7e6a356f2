"""The values of templates and what pongo2 makes of them: their text, their truth, their numbers, what is in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TypeAlias

from atoll.domain.errors import BadRequest
from atoll.domain.templating import go_time

Plain: TypeAlias = "str | int | float | bool | datetime | Sequence[Value] | Mapping[str, Value] | None"
Function: TypeAlias = "Callable[..., Plain]"
Value: TypeAlias = "Plain | Function"
"""Plain data, or a function that the caller of the template offers."""

_LARGEST = 1 << 63


def to_text(value: Value) -> str:
    """As a template prints it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "True" if value else "False"
    if isinstance(value, float):
        return f"{value:f}"
    if isinstance(value, (str, int)):
        return str(value)
    if isinstance(value, datetime):
        return go_time.default(value)
    kind = "map" if isinstance(value, Mapping) else "list" if isinstance(value, Sequence) else "function"
    return f"<{kind} Value>"  # no template means to print one; pongo2 does not fail either


def is_true(value: Value) -> bool:
    """Numbers but 0, texts, lists and maps with something in them, functions."""
    return callable(value) or bool(value)


def to_integer(value: Value) -> int:
    """As a number without fraction; what is no number is 0."""
    if isinstance(value, str):
        try:
            value = float(value) if any(mark in value for mark in ".eEn") else int(value[:32])
        except ValueError:
            return 0
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0
    if value != value or abs(value) >= _LARGEST:
        raise BadRequest("a number is out of range")
    return int(value)


def to_float(value: Value) -> float:
    """As a number; what is no number is 0."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return 0.0
    try:
        return float(value)
    except (ValueError, OverflowError):
        return 0.0


def bounded(number: int | float) -> int | float:
    """A result of arithmetic; BadRequest beyond 64 bits."""
    if isinstance(number, int) and abs(number) >= _LARGEST:
        raise BadRequest("a number is out of range")
    return number


def equal(one: Value, other: Value) -> bool:
    """Equal and of the same kind: "1" is not 1."""
    if isinstance(one, bool) is not isinstance(other, bool) or isinstance(one, str) is not isinstance(other, str):
        return False
    return not callable(one) and one == other


def contains(container: Value, item: Value) -> bool:
    """Whether a text has that part, a map that key, a list that entry."""
    if isinstance(container, str):
        return to_text(item) in container
    if isinstance(container, Mapping):
        return isinstance(item, str) and item in container
    return isinstance(container, Sequence) and any(equal(each, item) for each in container)


def member(value: Value, name: str, whole: str) -> Value:
    """`value.name`: a map's entry or a list's by number; nothing where there is none. BadRequest for a value without entries."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        return value.get(name)
    if isinstance(value, (str, Sequence)) and name.isdecimal() and len(name) < 10:
        return value[int(name)] if int(name) < len(value) else None
    raise BadRequest(f"{whole!r} has no field {name!r}")


def size(value: Value) -> int:
    """Its length; 0 for what has none."""
    return len(value) if isinstance(value, (str, Sequence, Mapping)) else 0
