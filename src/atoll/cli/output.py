"""Lists on standard output, in the five formats every `list` command has."""

from __future__ import annotations

from atoll.cli.errors import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

FORMATS = ("csv", "json", "table", "yaml", "compact")


def render(kind: str, header: Sequence[str], rows: Sequence[Sequence[str]], raw: Any) -> str:
    """The text of a list. `raw` is what json and yaml show instead of the rows."""
    if kind == "table":
        return table(header, rows)
    if kind == "compact":
        return compact(header, rows)
    if kind == "csv":
        return "".join(",".join(map(_csv_cell, row)) + "\n" for row in rows)
    if kind == "json":
        from atoll.client import codec

        return codec.dumps(raw) + "\n"
    if kind == "yaml":
        from atoll.cli import yaml_out

        return yaml_out.dump(raw)
    raise CommandError(f'Invalid format "{kind}"')


def check_format(kind: str) -> str:
    """The format itself when it is one; to be called before any request."""
    if kind not in FORMATS:
        raise CommandError(f'Invalid format "{kind}"')
    return kind


def title(name: str) -> str:
    """A column's name as tables show it: `user.comment` becomes USER COMMENT."""
    return name.replace("_", " ").replace(".", " ").upper().strip()


def width(text: str) -> int:
    """Columns a text takes on a terminal."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(letter) else 2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def _widths(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    widths = [width(title(name)) for name in header]
    for row in rows:
        for column, cell in enumerate(row):
            size = width(cell) if "\n" not in cell else max(map(width, cell.split("\n")))
            if size > widths[column]:
                widths[column] = size
    return widths


def _centre(text: str, size: int) -> str:
    """Pad on both sides; the odd blank goes to the right."""
    left, odd = divmod(size - width(text), 2)
    return " " * left + text + " " * (left + odd)


def _pad(text: str, size: int) -> str:
    return text + " " * (size - width(text))


def _lines(row: Sequence[str]) -> list[list[str]]:
    """The row as lines of cells: cells with line breaks make a row higher."""
    columns = [cell.split("\n") for cell in row]
    height = max(map(len, columns))
    return [[column[line] if line < len(column) else "" for column in columns] for line in range(height)]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with borders, a rule below every row."""
    widths = _widths(header, rows)
    rule = "+" + "+".join("-" * (size + 2) for size in widths) + "+\n"
    out = [rule, "| " + " | ".join(map(_centre, map(title, header), widths)) + " |\n", rule]
    for row in rows:
        out += ["| " + " | ".join(map(_pad, line, widths)) + " |\n" for line in _lines(row)]
        out.append(rule)
    return "".join(out)


def compact(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table without its lines."""
    widths = _widths(header, rows)
    out = ["  " + "  ".join(map(_centre, map(title, header), widths)) + "  \n"]
    for row in rows:
        out += ["  " + "  ".join(map(_pad, line, widths)) + "  \n" for line in _lines(row)]
    return "".join(out)


def _csv_cell(cell: str) -> str:
    if cell and (cell[0] in " \t" or cell == "\\." or any(letter in cell for letter in ',"\r\n')):
        return '"' + cell.replace('"', '""') + '"'
    return cell


def natural(text: str) -> list[tuple[int, int, str]]:
    """A sort key by which c2 comes before c10."""
    key: list[tuple[int, int, str]] = []
    digits = ""
    for letter in text:
        if letter.isdigit() and letter.isascii():
            digits += letter
            continue
        if digits:
            key.append((0, int(digits), ""))
            digits = ""
        key.append((1, 0, letter))
    if digits:
        key.append((0, int(digits), ""))
    return key


def natural_rows(rows: list[list[str]]) -> list[list[str]]:
    """Rows sorted by their cells, first column first, in natural order."""
    return sorted(rows, key=lambda row: [natural(cell) for cell in row])
