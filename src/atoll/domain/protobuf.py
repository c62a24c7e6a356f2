"""The wire format of protocol buffers, as far as LXD's migration messages need it: varints, text, and messages in messages.

A message is a frozen dataclass whose fields are made by `number`, `flag`, `text` and `message`. None is a field that is absent,
a tuple one that repeats. Bytes come from strangers: whatever they are, `decode` gives a message or a BadRequest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from enum import Enum
from functools import cache
from typing import Any, ClassVar, Protocol, TypeVar

from atoll.domain.errors import BadRequest

DEEPEST = 8
MOST_VALUES = 500_000

_VARINT, _FIXED_64, _LENGTH = 0, 1, 2
_LONGEST_VARINT = 10
_WORD = (1 << 64) - 1


class Message(Protocol):
    """A dataclass of such fields."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


M = TypeVar("M", bound=Message)


class _Kind(Enum):
    NUMBER = "number"
    FLAG = "flag"
    TEXT = "text"
    MESSAGE = "message"


@dataclasses.dataclass(frozen=True, slots=True)
class _Field:
    name: str
    number: int
    kind: _Kind
    required: bool
    repeated: bool
    type: type[Any] | None


def number(at: int, *, required: bool = False) -> Any:
    """A field of type int32, int64, uint32 or of an enumeration; `at` is its number on the wire."""
    return _declare(at, _Kind.NUMBER, required=required)


def flag(at: int, *, required: bool = False) -> Any:
    """A field of type bool."""
    return _declare(at, _Kind.FLAG, required=required)


def text(at: int, *, required: bool = False, repeated: bool = False) -> Any:
    """A field of type string."""
    return _declare(at, _Kind.TEXT, required=required, repeated=repeated)


def message(at: int, type: type[Any], *, repeated: bool = False) -> Any:
    """A field that is a message itself."""
    return _declare(at, _Kind.MESSAGE, repeated=repeated, type=type)


def _declare(at: int, kind: _Kind, *, required: bool = False, repeated: bool = False, type: type[Any] | None = None) -> Any:
    told = {"number": at, "kind": kind, "required": required, "repeated": repeated, "type": type}
    default: Any = () if repeated else _ZERO[kind] if required else None
    return dataclasses.field(default=default, metadata=told)


_ZERO: dict[_Kind, Any] = {_Kind.NUMBER: 0, _Kind.FLAG: False, _Kind.TEXT: ""}


@cache
def _fields(kind: type[Any]) -> dict[int, _Field]:
    found = [_Field(each.name, **each.metadata) for each in dataclasses.fields(kind)]
    return {each.number: each for each in found}


# --- writing -----------------------------------------------------------------------------------------------------------


def encode(subject: Message) -> bytes:
    """A message as bytes. Fields that are required are written whatever they hold."""
    out = bytearray()
    for field in _fields(type(subject)).values():
        value = getattr(subject, field.name)
        for each in value if field.repeated else () if value is None else (value,):
            out += _encode_value(field, each)
    return bytes(out)


def _encode_value(field: _Field, value: Any) -> bytes:
    if field.kind in (_Kind.NUMBER, _Kind.FLAG):
        return _varint(field.number << 3 | _VARINT) + _varint(int(value) & _WORD)
    data = value.encode() if field.kind is _Kind.TEXT else encode(value)
    return _varint(field.number << 3 | _LENGTH) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# --- reading -----------------------------------------------------------------------------------------------------------


def decode(kind: type[M], data: bytes) -> M:
    """A message of that kind; fields that it does not know are passed over. BadRequest for what is none."""
    return _Reader().message(kind, data, depth=0)


class _Reader:
    """Counts values, so that little data cannot become many objects."""

    def __init__(self) -> None:
        self._values = 0

    def message(self, kind: type[M], data: bytes, *, depth: int) -> M:
        if depth > DEEPEST:
            raise BadRequest("A migration message is nested too deeply")
        fields = _fields(kind)
        found: dict[str, Any] = {}
        for at, value in _pairs(data):
            self._values += 1
            if self._values > MOST_VALUES:
                raise BadRequest("A migration message has too many values")
            if value is not None and (field := fields.get(at)) is not None:
                self._take(found, field, value, depth)
        for field in fields.values():
            if field.required and field.name not in found:
                raise BadRequest(f"A migration message lacks {field.name!r}")
            if field.repeated:
                found[field.name] = tuple(found.get(field.name, ()))
        return kind(**found)

    def _take(self, found: dict[str, Any], field: _Field, value: int | bytes, depth: int) -> None:
        if field.kind in (_Kind.NUMBER, _Kind.FLAG):
            if isinstance(value, bytes):
                raise BadRequest(f"A migration message has no number in {field.name!r}")
            found[field.name] = bool(value) if field.kind is _Kind.FLAG else value - (value >> 63 << 64)
            return
        if not isinstance(value, bytes):
            raise BadRequest(f"A migration message has a number in {field.name!r}")
        read = _text(value, field.name) if field.type is None else self.message(field.type, value, depth=depth + 1)
        if field.repeated:
            found.setdefault(field.name, []).append(read)
        else:
            found[field.name] = read


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"A migration message has bytes that are no text in {name!r}") from error


def _pairs(data: bytes) -> Iterator[tuple[int, int | bytes | None]]:
    """(number, value) of each field; None for one of a kind that no message here has."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        match tag & 7:
            case 0:
                value, at = _read_varint(data, at)
                yield tag >> 3, value
            case 2:
                length, at = _read_varint(data, at)
                at += length
                _require(at, data)
                yield tag >> 3, data[at - length : at]
            case 1 | 5 as width:
                at += 8 if width == _FIXED_64 else 4
                _require(at, data)
                yield tag >> 3, None
            case _:
                raise BadRequest("A migration message is malformed")


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(_LONGEST_VARINT):
        _require(at + 1, data)
        value |= (data[at] & 0x7F) << 7 * shift
        at += 1
        if data[at - 1] < 0x80:
            return value & _WORD, at
    raise BadRequest("A migration message is malformed")


def _require(end: int, data: bytes) -> None:
    if end > len(data):
        raise BadRequest("A migration message is cut off")
