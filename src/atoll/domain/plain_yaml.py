"""YAML of strangers as plain data: mappings, lists and scalars, within limits that are checked before anything is built.

There are no dates, no floats, no merge keys, no tags: a document cannot be more than its text.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any

from atoll.domain.errors import BadRequest

_SCALARS = (
    ("null", r"(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"(?:-?[1-9][0-9]*|0)$", list("-0123456789")),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a document may have. An alias bomb or a deep nesting costs only as much as its text."""

    bytes: int = 1 << 20
    nodes: int = 20_000
    depth: int = 16
    aliases: int = 8


def load(data: bytes, *, what: str, limits: Limits, typed: bool) -> object:
    """The data of that text, `what` being its name in messages. With `typed`, plain null, true, false and decimal numbers are
    what they look like; without, null alone, and every other scalar keeps its spelling (`serial: 0755`).

    BadRequest for a text that is not YAML or exceeds the limits. Blocks: about 0.1 s for 1 MiB
    of dense text.
    """
    import yaml  # 21 ms that a daemon without such work never pays

    if len(data) > limits.bytes:
        raise BadRequest(f"{what} is longer than {limits.bytes} bytes")
    loader = _loader(typed=typed)
    try:
        _check_events(yaml.parse(data, Loader=loader), what, limits)
        return yaml.load(data, Loader=loader)  # noqa: S506 - a subclass of the safe loader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # ValueError: a number too long for Python, or a text that is not UTF-8
        raise BadRequest(f"{what} is not valid YAML: {str(error)[:300]}") from error


@functools.cache
def _loader(*, typed: bool) -> Any:
    """The safe loader, in C where PyYAML has it, that knows only the scalars above."""
    import yaml  # see load

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loader: Any = type("PlainLoader", (base,), {"yaml_implicit_resolvers": {}})
    for tag, pattern, first in _SCALARS if typed else _SCALARS[:1]:
        loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), first)
    return loader


def _check_events(events: Any, what: str, limits: Limits) -> None:
    import yaml  # see load

    depth = nodes = aliases = 0
    for event in events:
        if isinstance(event, yaml.NodeEvent):
            nodes += 1
            aliases += isinstance(event, yaml.AliasEvent)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > limits.depth:
            raise BadRequest(f"{what} is nested deeper than {limits.depth} levels")
        if aliases > limits.aliases:
            raise BadRequest(f"{what} has more than {limits.aliases} aliases")
        if nodes > limits.nodes:
            raise BadRequest(f"{what} has more than {limits.nodes} nodes")
