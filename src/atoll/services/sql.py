"""`atolld sql`: queries of a person on the daemon's databases, and their dumps."""

from __future__ import annotations

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
            contents = {} if schema_only else {t: await tx.query(f'SELECT * FROM "{t}"') for t in tables}
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
        lines += [f'INSERT INTO "{name}" VALUES({",".join(_literal(v) for v in row)});' for row in contents.get(name, ())]
    lines += [f"{sql};" for kind, _, sql in objects if kind != "table"]
    return "\n".join([*lines, "COMMIT;", ""])


def _literal(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, int | float):
        return str(value)
    return "'" + str(value).replace("'", "''") + "'"


def split(text: str) -> list[str]:
    """Statements of a text, parted by semicolons outside quotes."""
    found: list[str] = []
    current: list[str] = []
    quote = ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        if character == ";" and not quote:
            found.append("".join(current).strip())
            current = []
        else:
            current.append(character)
    found.append("".join(current).strip())
    return [statement for statement in found if statement]
