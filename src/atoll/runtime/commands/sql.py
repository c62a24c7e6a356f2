"""`atolld sql`: statements and dumps against the daemon's databases."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from atoll.cli import output
from atoll.cli.errors import CommandError, UsageError
from atoll.runtime.call import Call

DATABASES = ("local", "global")


def run(call: Call) -> int:
    """Run a query, or one of the words .dump, .schema and .sync, and print what came of it."""
    if len(call.arguments) != 2:
        raise UsageError(bare=not call.arguments)
    database, query = call.arguments
    if database not in DATABASES:
        raise CommandError("Invalid database type")
    if query == "-":
        query = sys.stdin.read()
    if not query.strip():
        raise CommandError("No query provided")
    server = call.server()
    if query in (".dump", ".schema"):
        dump = server.get(f"/internal/sql?database={database}&schema={int(query == '.schema')}")
        sys.stdout.write(dump["text"])
    elif query == ".sync":
        server.request("POST", "/internal/sql/sync", {"database": database})
    else:
        answer = server.request("POST", "/internal/sql", {"database": database, "query": query})
        sys.stdout.write(render(answer.metadata["results"]))
    return 0


def render(results: Sequence[dict[str, Any]]) -> str:
    """The text of a batch's results: bare for one, each under `=> Query N:` for several."""
    if len(results) == 1:
        return render_result(results[0])
    return "".join(f"=> Query {number}:\n\n{render_result(result)}\n" for number, result in enumerate(results))


def render_result(result: dict[str, Any]) -> str:
    """One result: a table for type "select" (keys columns, rows), a count for "exec" (key rows_affected)."""
    if result["type"] != "select":
        return f"Rows affected: {result['rows_affected']}\n"
    return render_table(result["columns"], [[cell(value) for value in row] for row in result["rows"] or []])


def cell(value: Any) -> str:
    """A value as the table shows it; NULL is `<nil>`."""
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def render_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Names centred (the odd blank on the left), values to the left, rules around the names and below the rows."""
    lines = [line for row in rows for line in _lines(row)]
    widths = [max(map(output.width, [name, *(line[index] for line in lines)])) for index, name in enumerate(columns)]
    rule = "+" + "+".join("-" * (width + 2) for width in widths) + "+\n"
    names = [_centre(name, width) for name, width in zip(columns, widths, strict=True)]
    body = "".join("| " + " | ".join(map(_left, line, widths)) + " |\n" for line in lines)
    return f"{rule}| {' | '.join(names)} |\n{rule}{body}{rule}"


def _lines(row: Sequence[str]) -> list[list[str]]:
    """A row as lines of cells: a cell with line breaks makes its row higher."""
    columns = [value.split("\n") for value in row]
    height = max(map(len, columns), default=0)
    return [[column[index] if index < len(column) else "" for column in columns] for index in range(height)]


def _left(text: str, width: int) -> str:
    return text + " " * (width - output.width(text))


def _centre(text: str, width: int) -> str:
    gap = width - output.width(text)
    return " " * (gap - gap // 2) + text + " " * (gap // 2)
