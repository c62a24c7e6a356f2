"""Queries of a person: how texts are parted, what runs, and that a dump makes the same database anew."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.db import schema
from atoll.db.engine import Database
from atoll.domain.errors import BadRequest
from atoll.services import sql
from atoll.services.sql import SqlService

TRIGGER = """CREATE TRIGGER t AFTER DELETE ON a BEGIN
    DELETE FROM b WHERE x = ';'; SELECT CASE WHEN 1 THEN 2 END;
END"""


@pytest.mark.parametrize(
    ("text", "statements"),
    [
        ("", []),
        (" ;; ; \n", []),
        ("-- nothing; here\n/* ; */", []),
        ("SELECT 1", ["SELECT 1"]),
        ("SELECT 1;SELECT 2 ; ", ["SELECT 1", "SELECT 2"]),
        ("SELECT ';', \"a;b\", `c;d`, [e;f], 'it''s;'; SELECT 2", ["SELECT ';', \"a;b\", `c;d`, [e;f], 'it''s;'", "SELECT 2"]),
        ("SELECT 1 -- it's; fine\n, 2; SELECT 3 /* ' ; */", ["SELECT 1 -- it's; fine\n, 2", "SELECT 3"]),
        ("SELECT 'open; SELECT 2", ["SELECT 'open; SELECT 2"]),
        (f"{TRIGGER}; SELECT 1;", [TRIGGER, "SELECT 1"]),
        ("create temp trigger t begin select 1; end; select 2", ["create temp trigger t begin select 1; end", "select 2"]),
        ("CREATE TABLE trigger_end (a); SELECT 1", ["CREATE TABLE trigger_end (a)", "SELECT 1"]),
    ],
)
def test_split(text: str, statements: list[str]) -> None:
    assert sql.split(text) == statements


@given(st.text(alphabet="aE;'\"`[]-/*\n ()") | st.text())
def test_any_text_is_parted_into_pieces_of_itself(text: str) -> None:
    position = 0
    for statement in sql.split(text):
        assert statement and not statement[0].isspace() and statement[0] != ";"
        position = text.index(statement, position) + len(statement)


@given(st.lists(st.sampled_from(["SELECT 1", "SELECT ';'", 'SELECT "a;"', TRIGGER, "SELECT 'a''; b'"])))
def test_what_was_joined_is_parted_as_sqlite_does(statements: list[str]) -> None:
    assert sql.split(";\n".join(statements)) == statements
    assert all(sqlite3.complete_statement(f"{each};") for each in statements)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[SqlService]:
    databases = [Database(tmp_path / "local.db"), Database(tmp_path / "global.db")]
    for database in databases:
        await database.open()
    await schema.migrate(databases[0], schema.LOCAL, patches=schema.PATCHES)
    await schema.migrate(databases[1], schema.GLOBAL)
    yield SqlService(local=databases[0], shared=databases[1])
    for database in databases:
        await database.close()


async def test_statements_run_in_one_transaction(service: SqlService) -> None:
    results = await service.run("global", "INSERT INTO config (key, value) VALUES ('a', 'b'); SELECT key, value FROM config")
    assert results == [
        {"type": "exec", "rows_affected": 1},
        {"type": "select", "columns": ["key", "value"], "rows": [("a", "b")]},
    ]
    with pytest.raises(BadRequest, match="no such table"):
        await service.run("global", "DELETE FROM config; SELECT * FROM absent")
    assert (await service.run("global", "SELECT COUNT(*) FROM config"))[0]["rows"] == [(1,)]


@pytest.mark.parametrize("text", ["", ";", "BEGIN", "SELECT 1; commit", "ROLLBACK", "-- x\nEND", "SAVEPOINT a", "RELEASE a"])
async def test_what_is_refused(service: SqlService, text: str) -> None:
    with pytest.raises(BadRequest):
        await service.run("local", text)
    with pytest.raises(BadRequest):
        await service.run("absent", "SELECT 1")
    assert (await service.run("local", "SELECT 1"))[0]["rows"] == [(1,)]


async def test_a_dump_makes_the_same_database(service: SqlService) -> None:
    await service.run("global", """CREATE TABLE "odd "" name" (a, b BLOB); INSERT INTO "odd "" name" VALUES
        (NULL, X'00ff'), (1.5, 'it''s;'), (9e999, -9e999), (0.1, 9223372036854775807), ('ä', '')""")  # fmt: skip
    await service.run("global", "INSERT INTO config (key, value) VALUES ('text', 'a' || char(10) || 'b')")
    text = await service.dump("global", schema_only=False)
    other = sqlite3.connect(":memory:")
    other.executescript(text)
    for query in (
        'SELECT *, typeof(a), typeof(b) FROM "odd "" name"',
        "SELECT * FROM config",
        "SELECT * FROM projects",
        "SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite%' ORDER BY name",
    ):
        assert other.execute(query).fetchall() == (await service.run("global", query))[0]["rows"]
    other.close()
    assert "INSERT" not in await service.dump("local", schema_only=True)
    await service.sync("local")
