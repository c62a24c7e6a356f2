"""Cuts a template into text, `{{ … }}` and `{% … %}`, and the inside of those into words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto

from atoll.domain.errors import AtollError, BadRequest

_PIECE = re.compile(r"\{\{|\{%|\{#")
_ENDS = {"{{": "}}", "{%": "%}", "{#": "#}"}
_WORD = re.compile(
    r"""(?P<space>\s+)|(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|(?P<number>[0-9]{1,18}(?:\.[0-9]{1,18})?(?![0-9A-Za-z_]))
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<symbol>==|!=|<>|<=|>=|&&|\|\||[-+*/%<>=!().,|:\[\]])""",
    re.VERBOSE,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


class Kind(Enum):
    """Of a piece: what stands there; of a word: what it is."""

    PLAIN = auto()
    OUTPUT = auto()
    TAG = auto()
    TEXT = auto()
    NUMBER = auto()
    NAME = auto()
    SYMBOL = auto()


@dataclass(frozen=True, slots=True)
class Piece:
    """Text between the tags, or the inside of a `{{ … }}` or `{% … %}`."""

    kind: Kind
    content: str
    line: int


@dataclass(frozen=True, slots=True)
class Word:
    """A word inside a piece; a text without its quotes."""

    kind: Kind
    content: str


@contextmanager
def at_line(line: int) -> Iterator[None]:
    """What goes wrong in the block is told with the line."""
    try:
        yield
    except AtollError as error:
        if error.message.startswith("line "):
            raise
        raise type(error)(f"line {line}: {error.message}") from error


def pieces(source: str) -> list[Piece]:
    """The pieces in order, comments left out. A `-` beside a delimiter takes away the white space on that side."""
    found: list[Piece] = []
    position, line, trim = 0, 1, False
    while (match := _PIECE.search(source, position)) is not None:
        opening = match.group()
        end = _find_end(source, match.end(), _ENDS[opening], line + source.count("\n", position, match.start()))
        plain = source[position : match.start()]
        inside = source[match.end() : end]
        before, after = inside.startswith("-"), inside.endswith("-") and len(inside) > 1
        _add_plain(found, plain, line, left=trim, right=before)
        line += plain.count("\n")
        if opening != "{#":
            kind = Kind.OUTPUT if opening == "{{" else Kind.TAG
            found.append(Piece(kind, inside[before : len(inside) - after], line))
        line += inside.count("\n")
        position, trim = end + 2, after
    _add_plain(found, source[position:], line, left=trim, right=False)
    return found


def _add_plain(found: list[Piece], text: str, line: int, *, left: bool, right: bool) -> None:
    text = text.lstrip() if left else text
    text = text.rstrip() if right else text
    if text:
        found.append(Piece(Kind.PLAIN, text, line))


def _find_end(source: str, start: int, ending: str, line: int) -> int:
    """Where the delimiter is that ends a piece; one inside quotes does not count."""
    if ending == "#}":
        end = source.find(ending, start)
    else:
        end = start
        while not source.startswith(ending, end):
            match = _WORD.match(source, end)
            if match is None:
                end = -1
                break
            end = match.end()
    if end < 0:
        raise BadRequest(f"line {line}: '{ending}' is missing, or something before it is not understood")
    return end


def words(content: str) -> list[Word]:
    """The words of a piece."""
    found: list[Word] = []
    position = 0
    while position < len(content):
        match = _WORD.match(content, position)
        if match is None:
            raise BadRequest(f"{content[position : position + 20]!r} is not understood")
        position = match.end()
        if match.lastgroup == "space":
            continue
        assert match.lastgroup is not None
        kind = Kind[match.lastgroup.upper()]
        found.append(Word(kind, _unquote(match.group()) if kind is Kind.TEXT else match.group()))
    return found


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), text[1:-1])
