"""The row that declares a config key, and the table that looks keys up and checks whole configs.

Vocabulary: a *config* is the mapping of text to text that a server, instance, project, pool, volume, network or device
has; a *row* (Key) declares one key of it, or a family of keys with one `*` in its name. An empty value means "unset" and
is always valid.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from atoll.config.values import ValueType, quoted
from atoll.domain.errors import BadRequest

_LONGEST_NAME = 255
# A name may end up in a generated file: one word, nothing that ends a line or a key.
_WORD = r"[^\s=\x00-\x1f\x7f]+"


class Scope(StrEnum):
    """Whether each cluster member has a value of its own, or the cluster has one."""

    LOCAL = "local"
    GLOBAL = "global"


class Guard(StrEnum):
    """Which project restriction rules over a key in a restricted project."""

    OPEN = "open"
    """Harmless: no restriction."""
    LOW_LEVEL = "lowlevel"
    """restricted.{containers,virtual-machines}.lowlevel. A row that says nothing is this: unclassified is forbidden."""
    NESTING = "nesting"
    """restricted.containers.nesting."""
    PRIVILEGE = "privilege"
    """restricted.containers.privilege."""
    INTERCEPTION = "interception"
    """restricted.containers.interception."""


@dataclass(frozen=True, slots=True)
class Key:
    """One config key. `shown_default` is prose for a default that is not a value; `wild` is what a `*` may stand for."""

    name: str
    type: ValueType
    default: str = ""
    doc: str = ""
    live: bool = False
    since: str = "1.0"
    scope: Scope = Scope.GLOBAL
    condition: str = ""
    secret: bool = False
    guard: Guard = Guard.LOW_LEVEL
    check: Callable[[str], None] | None = None
    shown_default: str = ""
    wild: str = _WORD

    @property
    def is_family(self) -> bool:
        """Whether the name stands for many keys."""
        return "*" in self.name

    def read(self, text: str) -> Any:
        """The typed value of a text that is not empty; ValueError where it is invalid."""
        value = self.type.read(text)
        if self.check is not None:
            self.check(text)
        return value


class KeyTable:
    """The rows of one kind of config.

    `unknown` and `invalid` are templates of messages with {key}, {value} and {why}. `rules` look at a whole config after its
    values were found valid, and raise BadRequest.
    """

    def __init__(
        self,
        name: str,
        keys: Iterable[Key],
        *,
        unknown: str = "Unknown configuration key: {key}",
        invalid: str = 'Invalid value for configuration key "{key}": {why}',
        rules: Iterable[Callable[[Mapping[str, str]], None]] = (),
    ) -> None:
        self.name = name
        self._rows = tuple(keys)
        self._unknown = unknown
        self._invalid = invalid
        self._rules = tuple(rules)
        self._exact = {key.name: key for key in self._rows if not key.is_family}
        self._families = [key for key in self._rows if key.is_family]
        # Families are few but tried one by one, and clients send the same names again and again.
        self._find_family = functools.lru_cache(maxsize=2048)(self._search)

    def rows(self) -> tuple[Key, ...]:
        """All rows, in the order declared."""
        return self._rows

    def find(self, name: str) -> Key | None:
        """The row of a key: an exact name goes before a family, an earlier family before a later one."""
        key = self._exact.get(name)
        if key is not None or len(name) > _LONGEST_NAME:
            return key
        return self._find_family(name)

    def guard(self, name: str) -> Guard:
        """The restriction over a key; low-level where no row knows it."""
        key = self.find(name)
        return Guard.LOW_LEVEL if key is None else key.guard

    def validate(self, config: Mapping[str, str]) -> None:
        """Raise BadRequest, naming the key, unless every key is known, every value valid and every rule kept."""
        for name, text in config.items():
            self.validate_one(name, text)
        for rule in self._rules:
            rule(config)

    def validate_one(self, name: str, text: str) -> None:
        """Check one key and its value by themselves."""
        key = self.find(name)
        if key is None:
            raise BadRequest(self._unknown.format(key=_shown(name), value=_shown(text)))
        if not isinstance(text, str):
            raise BadRequest(self._invalid.format(key=name, value=_shown(text), why="it must be a string"))
        if text:
            self._read(key, name, text)

    def get(self, config: Mapping[str, str], name: str) -> Any:
        """The typed value of a key, else of its default, else None. BadRequest where a stored value is invalid.

        Asking for a key that no row declares is a programming error (KeyError).
        """
        key = self._row(name)
        text = config.get(name) or key.default
        return self._read(key, name, text) if text else None

    def flag(self, config: Mapping[str, str], name: str) -> bool:
        """The value of a boolean key; unset without a default is False."""
        return bool(self.get(config, name))

    def number(self, config: Mapping[str, str], name: str) -> int | None:
        """The value of an integer or size key."""
        value = self.get(config, name)
        return None if value is None else int(value)

    def text(self, config: Mapping[str, str], name: str) -> str:
        """The text of a key or of its default, checked; "" when unset."""
        return (config.get(name) or self._row(name).default) if self.get(config, name) is not None else ""

    def defaults(self) -> dict[str, str]:
        """Every key that has a default value, with it."""
        return {key.name: key.default for key in self._rows if key.default}

    def _row(self, name: str) -> Key:
        key = self.find(name)
        if key is None:
            raise KeyError(f"{self.name} has no config key {name!r}")
        return key

    def _read(self, key: Key, name: str, text: str) -> Any:
        try:
            return key.read(text)
        except ValueError as error:
            shown = "…" if key.secret else _shown(text)
            raise BadRequest(self._invalid.format(key=name, value=shown, why=error)) from error

    def _search(self, name: str) -> Key | None:
        return next((key for key in self._families if _pattern(key.name, key.wild).fullmatch(name)), None)


def _shown(text: object) -> str:
    """What a client sent, fit for a message that has its own quotes."""
    return quoted(str(text))[1:-1]


@functools.cache
def _pattern(name: str, wild: str) -> re.Pattern[str]:
    before, _, after = name.partition("*")
    return re.compile(f"{re.escape(before)}{wild}{re.escape(after)}")
