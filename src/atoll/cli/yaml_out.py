"""YAML as the Go tools write it: two spaces, lists not indented, the same quoting, lines folded at 80 columns."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

WIDTH = 80
_WORDS = frozenset(
    word
    for name in ("y", "n", "yes", "no", "on", "off", "true", "false", "null", "~", ".nan", ".inf", "-.inf", "+.inf")
    for word in (name, name.upper(), name.capitalize())
) | {"", ".NaN", ".Inf", "-.Inf", "+.Inf"}
_INDICATORS = "#,[]{}&*!|>'\"%@`"
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "\x1b": "\\e", "\0": "\\0", "\a": "\\a",
            "\b": "\\b", "\v": "\\v", "\f": "\\f", "\x85": "\\N", "\xa0": "\\_"}  # fmt: skip
_ESCAPES |= {"\u2028": "\\L", "\u2029": "\\P"}
# Fields for which the API says null and YAML shows the empty value of their type.
LISTS = frozenset(("backups", "snapshots", "profiles", "used_by", "locations", "addresses", "api_extensions", "aliases"))
MAPS = frozenset(("config", "devices", "expanded_config", "expanded_devices", "properties", "disk", "network"))
TIMES = frozenset(("created_at", "last_used_at", "expires_at", "uploaded_at", "updated_at", "first_seen_at", "last_seen_at"))


def dump(value: Any) -> str:
    """A whole document, ending in a newline."""
    return "".join(_node(value, 0, ""))


def _node(value: Any, indent: int, key: str) -> Iterator[str]:
    """A value at the start of a line."""
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield "  " * indent + _key(name) + ":"
            yield from _after_key(item, indent, name)
    elif isinstance(value, list) and value:
        for item in value:
            yield "  " * indent + "-"
            yield from _after_dash(item, indent)
    else:
        yield scalar(value, indent, 2 * indent, key) + "\n"


def _key(name: str) -> str:
    return scalar(name, 0, 0, "")


def _after_key(value: Any, indent: int, key: str) -> Iterator[str]:
    if value and isinstance(value, dict | list):
        yield "\n"
        yield from _node(value, indent + isinstance(value, dict), key)
    else:
        yield f" {scalar(value, indent + 1, 2 * indent + len(key) + 2, key)}\n"


def _after_dash(value: Any, indent: int) -> Iterator[str]:
    if value and isinstance(value, dict | list):
        block = "".join(_node(value, indent + 1, ""))
        yield " " + block[2 * indent + 2 :]
    else:
        yield f" {scalar(value, indent + 1, 2 * indent + 2, '')}\n"


def scalar(value: Any, indent: int, column: int, key: str) -> str:
    """One scalar. `indent` is that of its continuation lines, `column` where its text begins."""
    if value is None:
        return "{}" if key in MAPS else "[]" if key in LISTS else "null"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return "{}" if isinstance(value, dict) else "[]"
    if not isinstance(value, str):
        return str(value)
    if key in TIMES and value:
        return value
    return _text(value, indent, column)


def _text(text: str, indent: int, column: int) -> str:
    pad = "  " * indent
    if any(_is_special(letter) for letter in text) or " \n" in text:
        return _fold('"' + "".join(map(_escape, text)) + '"', pad, column)
    if "\n" in text:
        return _literal(text, pad)
    if _is_typed(text):
        return f'"{text}"'
    if _is_plain(text):
        return _fold(text, pad, column)
    return _fold("'" + text.replace("'", "''") + "'", pad, column)


def _is_special(letter: str) -> bool:
    return not (letter == "\n" or " " <= letter <= "~" or "\xa0" < letter <= "\ud7ff" or "\ue000" <= letter < "\ufeff")


def _escape(letter: str) -> str:
    if letter in _ESCAPES:
        return _ESCAPES[letter]
    if not _is_special(letter):
        return letter
    code = ord(letter)
    return f"\\x{code:02X}" if code < 0x100 else f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"


def _is_plain(text: str) -> bool:
    """Whether the text needs no quotes: no indicator where one would count, no blank at either end."""
    first, second = text[0], text[1:2]
    if first in _INDICATORS or (first in "-?:" and second in ("", " ")) or text.startswith(("---", "...")):
        return False
    return " " not in (first, text[-1]) and ": " not in text and " #" not in text and text[-1] != ":"


def _is_typed(text: str) -> bool:
    """Whether a reader would take the bare text for something else than a text."""
    if text in _WORDS:
        return True
    if text[0] not in "0123456789+-.":
        return False
    return _is_number(text) or _is_sexagesimal(text) or _is_date(text)


def _is_number(text: str) -> bool:
    bare = text.replace("_", "")
    unsigned = bare[1:] if bare[:1] in ("+", "-") else bare
    if not unsigned or unsigned[0] not in "0123456789.":
        return False
    for base in (0, 8):
        try:
            int(bare, base)
        except ValueError:
            continue
        return True
    try:
        float(bare)
    except ValueError:
        return False
    return True


def _is_sexagesimal(text: str) -> bool:
    head, *rest = text.lstrip("+-").split(":")
    return (
        bool(rest)
        and head.replace("_", "").isdigit()
        and all(part[:2].isdigit() and len(part) <= 2 and int(part) < 60 for part in rest)
    )


def _is_date(text: str) -> bool:
    parts = text[:10].split("-")
    return len(parts) == 3 and len(parts[0]) == 4 and all(part.isdigit() for part in parts) and text[10:11] in (
        "", "T", "t", " "
    )  # fmt: skip


def _literal(text: str, pad: str) -> str:
    hint = "2" if text[0] in " \n" else ""
    tail = "-" if not text.endswith("\n") else "+" if text.endswith("\n\n") or text == "\n" else ""
    lines = text.split("\n")
    if not text.endswith("\n"):
        lines.append("")
    return f"|{hint}{tail}\n" + "\n".join(pad + line if line else "" for line in lines[:-1])


def _fold(text: str, pad: str, column: int) -> str:
    """Break the text at single spaces once a line has passed WIDTH columns, as libyaml does."""
    if column + len(text) <= WIDTH or " " not in text:
        return text
    lines: list[str] = []
    start, position = 0, column
    for index, letter in enumerate(text):
        inner = 0 < index < len(text) - 1 and " " not in (text[index - 1], text[index + 1])
        if letter == " " and position > WIDTH and inner:
            lines.append(text[start:index])
            start, position = index + 1, len(pad)
        else:
            position += 1
    lines.append(text[start:])
    return ("\n" + pad).join(lines)
