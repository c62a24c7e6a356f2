"""Transactions: what is kept, what is undone, who waits for whom."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from atoll.db import engine
from atoll.db.engine import Database
from atoll.domain.errors import BadRequest, Conflict, HostError, Internal, Unavailable


@pytest.fixture
async def numbers(empty: Database) -> Database:
    """A database with a table of unique numbers."""
    await empty.script(
        [
            "CREATE TABLE numbers (id INTEGER PRIMARY KEY, n INTEGER NOT NULL UNIQUE CHECK (n < 1000))",
            "CREATE TABLE uses (number_id INTEGER NOT NULL REFERENCES numbers (id) DEFERRABLE INITIALLY IMMEDIATE)",
        ]
    )
    return empty


async def insert(database: Database, *values: int) -> None:
    async with database.write() as tx:
        await tx.many("INSERT INTO numbers (n) VALUES (?)", [(value,) for value in values])


async def stored(database: Database) -> list[int]:
    async with database.read() as tx:
        return [row[0] for row in await tx.query("SELECT n FROM numbers ORDER BY n")]


async def test_statements_answer(numbers: Database) -> None:
    async with numbers.write() as tx:
        first = await tx.insert("INSERT INTO numbers (n) VALUES (?)", 1)
        assert await tx.insert("INSERT INTO numbers (n) VALUES (?)", 2) == first + 1
        assert await tx.execute("UPDATE numbers SET n = n + 10") == 2
        assert await tx.one("SELECT n FROM numbers WHERE id = ?", first) == (11,)
        assert await tx.one("SELECT n FROM numbers WHERE id = 99") is None
        await tx.many("INSERT INTO numbers (n) VALUES (?)", [])
        assert await tx.queries(("SELECT 1",), ("SELECT n FROM numbers WHERE n > ?", 11)) == [[(1,)], [(12,)]]
    assert await stored(numbers) == [11, 12]


async def test_no_space_is_the_hosts_fault_and_passes(empty: Database) -> None:
    """As on a disk that is full, until something on it is removed."""
    await empty.script(["CREATE TABLE texts (text BLOB)"])
    with pytest.raises(HostError, match="Failed to update database: database or disk is full"):
        async with empty.write() as tx:
            await tx.query("PRAGMA max_page_count = 1000")
            await tx.insert("INSERT INTO texts VALUES (zeroblob(8000000))")
    async with empty.write() as tx:
        await tx.query("PRAGMA max_page_count = 1000000")
        await tx.insert("INSERT INTO texts VALUES (zeroblob(8000000))")


async def test_an_error_undoes_all_and_the_next_one_writes(numbers: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        async with numbers.write() as tx:
            await tx.insert("INSERT INTO numbers (n) VALUES (1)")
            raise ZeroDivisionError
    await insert(numbers, 2)
    assert await stored(numbers) == [2]


async def test_a_cancellation_undoes_all_and_the_next_one_writes(numbers: Database) -> None:
    inserted = asyncio.Event()

    async def work() -> None:
        async with numbers.write() as tx:
            await tx.insert("INSERT INTO numbers (n) VALUES (1)")
            inserted.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await inserted.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await insert(numbers, 2)
    assert await stored(numbers) == [2]


@pytest.mark.parametrize("cancellations", [1, 3])
async def test_a_statement_that_is_cancelled_is_ended_before_the_rollback(numbers: Database, cancellations: int) -> None:
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def wait() -> None:
        loop.call_soon_threadsafe(begun.set)
        go_on.wait(30)

    await numbers._writer.call(numbers._writer.raw.create_function, "wait", 0, wait)

    async def work() -> None:
        async with numbers.write() as tx:
            await tx.insert("INSERT INTO numbers (n) VALUES (1)")
            await tx.query("SELECT wait()")

    task = asyncio.create_task(work())
    await begun.wait()
    for _ in range(cancellations):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await insert(numbers, 2)
    assert await stored(numbers) == [2]


async def test_writers_take_turns(numbers: Database) -> None:
    async def increment() -> None:
        async with numbers.write() as tx:
            row = await tx.one("SELECT n FROM numbers")
            assert row is not None
            await asyncio.sleep(0)
            await tx.execute("UPDATE numbers SET n = ?", row[0] + 1)

    await insert(numbers, 0)
    await asyncio.gather(*(increment() for _ in range(30)))
    assert await stored(numbers) == [30]


async def test_a_reader_sees_one_moment_and_waits_for_no_writer(numbers: Database) -> None:
    await insert(numbers, 1)
    async with numbers.read() as reading:
        assert await reading.query("SELECT n FROM numbers") == [(1,)]
        async with numbers.write() as writing:
            await writing.insert("INSERT INTO numbers (n) VALUES (2)")
            assert await reading.query("SELECT n FROM numbers") == [(1,)]
        assert await reading.query("SELECT n FROM numbers") == [(1,)]
    assert await stored(numbers) == [1, 2]


async def test_a_reader_cannot_write(numbers: Database) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        async with numbers.read() as tx:
            await tx.execute("DELETE FROM numbers")


async def test_a_reader_that_cannot_be_opened_is_tried_again(numbers: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each who asks, and later it serves."""
    tried = list[Path]()

    def refuse(path: Path, **_: object) -> sqlite3.Connection:
        tried.append(path)
        raise sqlite3.OperationalError("unable to open database file")

    with monkeypatch.context() as patched:
        patched.setattr(sqlite3, "connect", refuse)
        for _ in range(engine.READERS + 1):
            with pytest.raises(sqlite3.OperationalError):
                await stored(numbers)
        async with numbers.read():
            pass
        assert len(tried) == engine.READERS + 1
    assert await stored(numbers) == []


async def test_readers_come_back_whatever_their_bodies_do(numbers: Database) -> None:
    await insert(numbers, 1)
    for _ in range(engine.READERS + 2):
        with pytest.raises(ZeroDivisionError):
            async with numbers.read() as tx:
                await tx.query("SELECT 1")
                raise ZeroDivisionError
    assert await asyncio.gather(*(stored(numbers) for _ in range(20))) == [[1]] * 20
    await insert(numbers, 2)
    assert await stored(numbers) == [1, 2]


async def test_constraints_are_conflicts(numbers: Database) -> None:
    await insert(numbers, 1)
    with pytest.raises(Conflict, match="already exists"):
        await insert(numbers, 1)
    async with numbers.write() as tx:
        await tx.insert("INSERT INTO uses (number_id) SELECT id FROM numbers")
    with pytest.raises(Conflict, match="in use"):
        async with numbers.write() as tx:
            await tx.execute("DELETE FROM numbers")
    with pytest.raises(Internal, match="CHECK"):
        await insert(numbers, 1000)
    assert await stored(numbers) == [1]


async def test_a_commit_that_fails_undoes_all_and_the_next_one_writes(numbers: Database) -> None:
    with pytest.raises(Conflict):
        async with numbers.write() as tx:
            await tx.execute("PRAGMA defer_foreign_keys = ON")
            await tx.insert("INSERT INTO uses (number_id) VALUES (99)")
    await insert(numbers, 2)
    assert await stored(numbers) == [2]


async def test_parameters_are_limited(numbers: Database) -> None:
    most = engine.MAX_PARAMETERS
    places = ", ".join("?" * most)
    async with numbers.read() as tx:
        assert await tx.query(f"SELECT {places}", *range(most)) == [tuple(range(most))]
        with pytest.raises(Internal):
            await tx.query(f"SELECT {places}, ?", *range(most + 1))
        with pytest.raises(Internal):
            await tx.queries(("SELECT 1",), (f"SELECT {places}, ?", *range(most + 1)))
    async with numbers.write() as tx:
        for call in (tx.execute, tx.insert):
            with pytest.raises(Internal):
                await call("DELETE FROM numbers", *range(most + 1))
        with pytest.raises(Internal):
            await tx.many("DELETE FROM numbers", [range(most + 1)])


async def test_statements_of_people(numbers: Database) -> None:
    async with numbers.write() as tx:
        assert await tx.foreign("INSERT INTO numbers (n) VALUES (1), (2)") == {"type": "exec", "rows_affected": 2}
        assert await tx.foreign("SELECT n FROM numbers ORDER BY n") == {"type": "select", "columns": ["n"], "rows": [(1,), (2,)]}
        for text in ("SELEC 1", "SELECT 1; SELECT 2", "SELECT ?", "SELECT \0"):
            with pytest.raises(BadRequest):
                await tx.foreign(text)


async def test_close_waits_for_what_is_open_and_refuses_what_comes(tmp_path: Path, until: Any) -> None:
    database = Database(tmp_path / "x.db")
    await database.open()
    await database.script(["CREATE TABLE numbers (n INTEGER)"])
    begun, reading, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def write() -> None:
        async with database.write() as tx:
            await tx.insert("INSERT INTO numbers (n) VALUES (1)")
            begun.set()
            await go_on.wait()
            await tx.insert("INSERT INTO numbers (n) VALUES (2)")

    async def read() -> None:
        async with database.read() as tx:
            await tx.query("SELECT n FROM numbers")
            reading.set()
            await go_on.wait()
            await tx.query("SELECT n FROM numbers")

    tasks = [asyncio.create_task(write()), asyncio.create_task(read())]
    await asyncio.gather(begun.wait(), reading.wait())
    closing = asyncio.create_task(database.close())
    await until(lambda: database._closed)
    await asyncio.sleep(0.02)
    assert not closing.done()
    for refused in (database.read, database.write):
        with pytest.raises(Unavailable):
            async with refused():
                pass
    go_on.set()
    await asyncio.gather(*tasks, closing)
    raw = sqlite3.connect(tmp_path / "x.db")
    assert raw.execute("SELECT n FROM numbers").fetchall() == [(1,), (2,)]
    raw.close()
    assert not (tmp_path / "x.db-wal").exists()


async def test_a_checkpoint_brings_the_file_up_to_date(numbers: Database) -> None:
    await insert(numbers, 7)
    await numbers.checkpoint()
    assert (numbers.path.parent / f"{numbers.path.name}-wal").stat().st_size == 0
