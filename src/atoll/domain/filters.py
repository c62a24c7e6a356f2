"""LXD's filter language for lists: `name eq c1 and (not status eq Running or config.user.x eq 1)` without the parentheses.

A clause is `[not] FIELD eq|ne VALUE`; clauses are joined by `and` / `or`, evaluated from left to right. Values may be quoted and,
as regular expressions, must match the whole field. Fields go into objects by dots.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from atoll.domain.errors import BadRequest

_MAX = 4096


@dataclass(frozen=True, slots=True)
class _Clause:
    joined_by: str
    negated: bool
    field: str
    equal: bool
    value: str

    def holds(self, subject: Mapping[str, Any]) -> bool:
        found = _matches(_lookup(subject, self.field), self.value)
        return (found is self.equal) is not self.negated


def parse(text: str) -> Callable[[Mapping[str, Any]], bool]:
    """A function that tells whether an object (as clients see it) passes. BadRequest for a malformed filter."""
    if len(text) > _MAX:
        raise BadRequest("The filter is too long")
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise BadRequest(f"Invalid filter: {error}") from error
    clauses = list(_clauses(words)) if words else []

    def passes(subject: Mapping[str, Any]) -> bool:
        result = True
        for clause in clauses:
            either = clause.joined_by == "or"
            if result is not either:  # else it is decided: true stays true before "or", false stays false before "and"
                result = clause.holds(subject)
        return result

    return passes


def _clauses(words: list[str]) -> list[_Clause]:
    found: list[_Clause] = []
    position = 0
    joined_by = "and"
    while True:
        negated = position < len(words) and words[position].lower() == "not"
        position += negated
        if position + 3 > len(words):
            raise BadRequest("Invalid filter: a clause is FIELD eq|ne VALUE")
        field, operator, value = words[position : position + 3]
        if operator.lower() not in ("eq", "ne"):
            raise BadRequest(f"Invalid filter: unknown operator {operator!r}")
        found.append(_Clause(joined_by, negated, field, operator.lower() == "eq", value))
        position += 3
        if position == len(words):
            return found
        joined_by = words[position].lower()
        if joined_by not in ("and", "or"):
            raise BadRequest(f"Invalid filter: expected 'and' or 'or' instead of {words[position]!r}")
        position += 1


def _lookup(subject: Any, field: str) -> Any:
    """The value of a dotted field; keys of configuration contain dots themselves, so the longest key wins."""
    if not isinstance(subject, Mapping):
        return None
    if field in subject:
        return subject[field]
    parts = field.split(".")
    for length in range(len(parts) - 1, 0, -1):
        head = ".".join(parts[:length])
        if head in subject:
            return _lookup(subject[head], ".".join(parts[length:]))
    return None


def _matches(actual: Any, wanted: str) -> bool:
    if actual is None:
        return False
    if isinstance(actual, bool):
        return wanted.lower() in (("true", "1", "yes", "on") if actual else ("false", "0", "no", "off"))
    text = str(actual)
    if text.lower() == wanted.lower():
        return True
    if len(wanted) > 256 or not re.search(r"[.*+?^$|\[\]()\\]", wanted):
        return False
    return _regex_matches(text, wanted)


def _regex_matches(text: str, pattern: str) -> bool:
    """Only patterns of bounded cost are tried: at most two quantifiers and one group, which has none.

    What the standard library's matcher does for others may grow with a high power of the text's length, or exponentially.
    """
    quantifiers = sum(pattern.count(character) for character in "*+?{")
    if quantifiers > 2 or pattern.count("(") > 1 or re.search(r"\)[*+?{]", pattern):
        return False
    try:
        return re.fullmatch(pattern, text[:1024], re.IGNORECASE) is not None
    except (re.error, OverflowError):  # the latter for a repetition count that is too large
        return False
