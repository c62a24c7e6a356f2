"""`atolld sql`: queries of a person on the daemon's databases, and their dumps."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from atoll.db.engine import Database, Row
from atoll.domain.errors import BadRequest
from atoll.host.threads import in_thread


class SqlService:
    """Use cases of looking into the databases; the only place that runs SQL that is not ours."""

    def __init__(self, *, local: Database, shared: Database) -> None:
        self._databases = {"local": local, "global": shared}

    def _find(self, name: str) -> Database:
        database = self._databases.get(name)
        if database is None:
            raise BadRequest("Invalid database: it is 'local' or 'global'")
        return database

    async def run(self, name: str, text: str) -> list[dict[str, Any]]:
        """Run statements parted by semicolons, all in one transaction; a result for each."""
        database = self._find(name)
        statements = split(text)
        if not statements:
            raise BadRequest("No query provided")
        if any(_CONTROL.match(statement) for statement in statements):
            raise BadRequest("All statements run in one transaction: they may not begin or end one")
        async with database.write() as tx:
            return [await tx.foreign(statement) for statement in statements]

    async def dump(self, name: str, *, schema_only: bool) -> str:
        """The database as statements that make it anew."""
        database = self._find(name)
        async with database.read() as tx:
            objects = await tx.query(
                "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY rowid"
            )
            tables = [name for kind, name, _ in objects if kind == "table"]
            contents = {} if schema_only else {t: await tx.query(f"SELECT * FROM {_quoted(t)}") for t in tables}
        return await in_thread(_script, objects, contents)

    async def sync(self, name: str) -> None:
        """Bring the file up to date."""
        await self._find(name).checkpoint()


def _script(objects: list[Row], contents: dict[str, list[Row]]) -> str:
    lines = ["PRAGMA foreign_keys=OFF;", "BEGIN TRANSACTION;"]
    for kind, name, sql in objects:
        if kind != "table":
            continue
        lines.append(f"{sql};")
        lines += [f"INSERT INTO {_quoted(name)} VALUES({','.join(map(_literal, row))});" for row in contents.get(name, ())]
    lines += [f"{sql};" for kind, _, sql in objects if kind != "table"]
    return "\n".join([*lines, "COMMIT;", ""])


def _literal(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"X'{value.hex()}'"
    if isinstance(value, float) and math.isinf(value):
        return "9e999" if value > 0 else "-9e999"
    if isinstance(value, int | float):
        return repr(value)
    return "'" + str(value).replace("'", "''") + "'"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


_TOKEN = re.compile(
    r"""(?P<nothing> \s+ | --[^\n]* | /\*.*?(?:\*/|\Z) )
    | '(?:[^']|'')*(?:'|\Z) | "(?:[^"]|"")*(?:"|\Z) | `[^`]*(?:`|\Z) | \[[^\]]*(?:\]|\Z) | (?P<word> \w+ ) | .""",
    re.DOTALL | re.VERBOSE,
)
_TRIGGER = re.compile(r"(EXPLAIN |QUERY |PLAN )*CREATE (TEMP |TEMPORARY )?TRIGGER\b")
_CONTROL = re.compile(r"(BEGIN|COMMIT|END|ROLLBACK|SAVEPOINT|RELEASE)\b", re.IGNORECASE)


def split(text: str) -> list[str]:
    """Statements of a text, without what stands between them; the semicolons in quotes, comments and triggers part nothing."""
    return [text[start:end] for start, end in _statements(text)]


def _statements(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of each statement. As SQLite has it, a trigger goes on to an END that stands between semicolons."""
    start = end = -1
    tokens: list[str] = []
    for match in _TOKEN.finditer(text):
        if match["nothing"]:
            continue
        token = match[0].upper() if match["word"] else match[0]
        if token == ";" and not _is_inside_trigger(tokens):
            if tokens:
                yield start, end
            tokens = []
            continue
        start = match.start() if not tokens else start
        end = match.end()
        tokens.append(token)
    if tokens:
        yield start, end


def _is_inside_trigger(tokens: list[str]) -> bool:
    """Whether a semicolon after these tokens of a statement is one of a trigger's body."""
    return _TRIGGER.match(" ".join(tokens[:6])) is not None and tokens[-2:] != [";", "END"]
