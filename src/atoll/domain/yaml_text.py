"""Plain data as YAML text: block style, two spaces, text quoted wherever a reader could take it for anything else.

A tenth of what PyYAML takes for the same, which counts where it is written after each change of an instance.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./@+=-]*(?: [A-Za-z0-9_./@+=-]+)*")
_WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null"))
_UNPRINTABLE = re.compile(r"[\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff]")


def dump(tree: Any) -> bytes:
    """A document of mappings with text as keys, lists, text, whole numbers, truth values and None."""
    return "".join(_node(tree, "")).encode()


def _node(value: Any, indent: str) -> Iterator[str]:
    """A value at the start of a line."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield f"{indent}{_text(key)}:"
            yield from _after(item, indent)
    elif isinstance(value, list) and value:
        for item in value:
            block = "".join(_node(item, indent + "  "))
            yield f"{indent}- {block.lstrip(' ')}"
    else:
        yield f"{indent}{_scalar(value)}\n"


def _after(value: Any, indent: str) -> Iterator[str]:
    """A value behind its key; a list is no deeper than that."""
    if value and isinstance(value, dict | list):
        yield "\n"
        yield from _node(value, indent if isinstance(value, list) else indent + "  ")
    else:
        yield f" {_scalar(value)}\n"


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict | list):
        return "{}" if isinstance(value, dict) else "[]"
    return json.dumps(value)


def _text(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False))
