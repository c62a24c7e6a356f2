"""A registry of drivers of one kind: by name, imported when first asked for, open to plug-ins by entry points."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from atoll.domain.errors import BadRequest

SIMULATED = "sim"
"""The driver of each kind that tests use in place of a host; nobody is told to choose it."""

D = TypeVar("D")


class Registry(Generic[D]):
    """`builtin` maps a driver's name to "module:Class"; `group` is the entry-point group that third parties register in."""

    def __init__(self, kind: str, builtin: Mapping[str, str], *, group: str) -> None:
        self._kind = kind
        self._builtin = builtin
        self._group = group
        self._classes: dict[str, type[D]] = {}

    def names(self) -> list[str]:
        """Names of all drivers that could be asked for."""
        return sorted({*self._builtin, *(point.name for point in entry_points(group=self._group))})

    def find(self, name: str) -> type[D]:
        """The driver class of that name. BadRequest if there is none."""
        if name not in self._classes:
            self._classes[name] = self._load(name)
        return self._classes[name]

    def create(self, name: str, *args: Any, **kwargs: Any) -> D:
        """A driver object of that name, made with the given arguments."""
        return self.find(name)(*args, **kwargs)

    def _load(self, name: str) -> type[D]:
        if target := self._builtin.get(name):
            module, _, attribute = target.partition(":")
            loaded: type[D] = getattr(importlib.import_module(module), attribute)
            return loaded
        for point in entry_points(group=self._group, name=name):
            plugin: type[D] = point.load()
            return plugin
        known = ", ".join(each for each in self.names() if each != SIMULATED)
        raise BadRequest(f"There is no {self._kind} driver {name!r}; known are {known}")
