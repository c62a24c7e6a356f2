"""JSON without importing `json`.

`import json` costs 11 ms (its decoder compiles regular expressions), a third of this client's budget; the C scanner and
encoder below it cost nothing. Where the interpreter has no `_json`, the public module does the work.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Rules:
    """What the C scanner reads of a `json.JSONDecoder`."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float
    memo: dict[str, str] = {}


def _refuse(value: object) -> object:
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _accelerated() -> tuple[Any, Any]:
    """The C scanner and encoder; (None, None) in an interpreter that has them not, or not like this."""
    try:
        import _json

        scanner: Any = _json.make_scanner
        encoder: Any = _json.make_encoder
        return scanner(_Rules), encoder(None, _refuse, _json.encode_basestring, None, ":", ",", False, False, False)
    except (ImportError, AttributeError, TypeError):
        return None, None


_scan, _encode = _accelerated()


def loads(text: str) -> Any:
    """The value of a JSON text; ValueError when it is none."""
    if _scan is None:
        import json

        return json.loads(text)
    start = text.strip(" \t\r\n")
    try:
        value, end = _scan(start, 0)
    except StopIteration as stop:
        raise ValueError(f"not JSON at character {stop.value}") from None
    if end != len(start):
        raise ValueError(f"not JSON after character {end}")
    return value


def dumps(value: object) -> str:
    """A value as compact JSON, other alphabets as they are."""
    if _encode is None:
        import json

        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return "".join(_encode(value, 0))
