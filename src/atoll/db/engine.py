"""Transactions on a SQLite file, in a shape that a replicated engine can offer too.

    async with database.write() as tx:
        row_id = await tx.insert("INSERT INTO projects (name) VALUES (?)", name)
    async with database.read() as tx:
        rows = await tx.query("SELECT name FROM projects")

Writers take turns (BEGIN IMMEDIATE) and commit on leaving the block, or roll back on an error. Readers see one moment of the
database and never wait for a writer. Statements run in threads of their own: the event loop never waits for the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from atoll.domain.errors import BadRequest, Conflict, HostError, Internal, Unavailable
from atoll.host import threads

R = TypeVar("R")
Row = tuple[Any, ...]

MAX_PARAMETERS = 255
"""dqlite binds the 256th parameter as NULL without a word, so no statement may have more."""

READERS = 2

_OF_THE_HOST = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
"""Kinds of failure that no statement is to blame for."""


class _Connection:
    """One SQLite connection, used only from its own thread."""

    def __init__(self, path: Path, *, readonly: bool) -> None:
        self._thread = threads.Workers("atoll-db", 1)
        self._path = path
        self._readonly = readonly
        self._raw: sqlite3.Connection | None = None

    @property
    def raw(self) -> sqlite3.Connection:
        """SQLite's own connection, opened when it is first needed: a quiet daemon has no use for all readers, of 200 kB each."""
        if self._raw is None:
            self._raw = self._opened()
        return self._raw

    async def call(self, function: Callable[..., R], *args: Any) -> R:
        """Run in the connection's thread; never abandoned half-way, even when the caller is cancelled."""
        return await threads.finished(self._thread.submit(function, *args))

    def submit(self, function: Callable[..., None], *args: Any) -> None:
        """Run in the connection's thread, after what was asked before; nobody waits."""
        self._thread.submit(function, *args)

    def _opened(self) -> sqlite3.Connection:
        raw = sqlite3.connect(self._path, isolation_level=None, timeout=30, cached_statements=256)
        raw.execute("PRAGMA journal_mode=WAL")
        raw.execute("PRAGMA synchronous=FULL")
        raw.execute("PRAGMA foreign_keys=ON")
        if self._readonly:
            raw.execute("PRAGMA query_only=ON")
        return raw

    async def close(self) -> None:
        if self._raw is not None:
            await self.call(self._raw.close)
        self._thread.stop()


class Transaction:
    """Statements of one transaction, which the first of them begins. Positional parameters only."""

    def __init__(self, connection: _Connection, *, begin: str) -> None:
        self._connection = connection
        self._begin: str | None = begin

    async def query(self, sql: str, *parameters: Any) -> list[Row]:
        """All rows of a SELECT."""
        _check(parameters)
        return await self._connection.call(self._query, sql, parameters)

    async def queries(self, *statements: tuple[Any, ...]) -> list[list[Row]]:
        """Several SELECTs, each (sql, parameter, …), in one hop."""
        for statement in statements:
            _check(statement[1:])
        return await self._connection.call(lambda: [self._query(sql, rest) for sql, *rest in statements])

    async def one(self, sql: str, *parameters: Any) -> Row | None:
        """The first row of a SELECT, or None."""
        rows = await self.query(sql, *parameters)
        return rows[0] if rows else None

    async def execute(self, sql: str, *parameters: Any) -> int:
        """Run an UPDATE or DELETE; the number of rows it touched."""
        _check(parameters)
        return await self._connection.call(self._execute, sql, parameters)

    async def insert(self, sql: str, *parameters: Any) -> int:
        """Run an INSERT; the new row's id. Conflict when a unique name is taken."""
        _check(parameters)
        return await self._connection.call(self._insert, sql, parameters)

    async def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each row of parameters."""
        listed = list(rows)
        if listed:
            _check(listed[0])
            await self._connection.call(self._many, sql, listed)

    async def foreign(self, sql: str) -> dict[str, Any]:
        """One statement of a person's: {"type": "select", "columns", "rows"} or {"type": "exec", "rows_affected"}."""
        return await self._connection.call(self._foreign, sql)

    def _foreign(self, sql: str) -> dict[str, Any]:
        self._ensure_begun()
        try:
            cursor = self._connection.raw.execute(sql)
            if cursor.description is None:
                return {"type": "exec", "rows_affected": max(cursor.rowcount, 0)}
            columns = [column[0] for column in cursor.description]
            return {"type": "select", "columns": columns, "rows": cursor.fetchall()}
        except sqlite3.Error as error:
            raise BadRequest(f"Failed to execute query: {error}") from error

    def commit(self) -> None:
        """In the connection's thread: make what was done last, or undo it when that fails."""
        if self._begin is not None:
            return
        try:
            self._guard(lambda: self._connection.raw.execute("COMMIT"))
        except BaseException:
            self.rollback()
            raise

    def rollback(self) -> None:
        """In the connection's thread: undo what was done, if anything was begun and SQLite has not undone it already (as it does
        when the disk is full)."""
        if self._begin is None and self._connection.raw.in_transaction:
            self._connection.raw.execute("ROLLBACK")

    def _ensure_begun(self) -> None:
        if self._begin is not None:
            self._connection.raw.execute(self._begin)
            self._begin = None

    def _query(self, sql: str, parameters: Sequence[Any]) -> list[Row]:
        self._ensure_begun()
        return self._connection.raw.execute(sql, parameters).fetchall()

    def _execute(self, sql: str, parameters: Sequence[Any]) -> int:
        self._ensure_begun()
        return self._guard(lambda: self._connection.raw.execute(sql, parameters).rowcount)

    def _insert(self, sql: str, parameters: Sequence[Any]) -> int:
        self._ensure_begun()
        return self._guard(lambda: self._connection.raw.execute(sql, parameters).lastrowid or 0)

    def _many(self, sql: str, rows: list[Sequence[Any]]) -> None:
        self._ensure_begun()
        self._guard(lambda: self._connection.raw.executemany(sql, rows))

    @staticmethod
    def _guard(action: Callable[[], R]) -> R:
        try:
            return action()
        except sqlite3.IntegrityError as error:
            if "UNIQUE" in str(error):
                raise Conflict("An object of that name already exists") from error
            if "FOREIGN KEY" in str(error):
                raise Conflict("The object is in use, or refers to one that is not there") from error
            raise Internal(f"Database constraint: {error}") from error
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF in _OF_THE_HOST:
                raise HostError(f"Failed to update database: {error}") from error
            raise


def _check(parameters: Sequence[Any]) -> None:
    if len(parameters) > MAX_PARAMETERS:
        raise Internal(f"{len(parameters)} parameters in one statement, at most {MAX_PARAMETERS} are allowed")


class Database:
    """A SQLite file with one writer and a few readers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer = _Connection(path, readonly=False)
        self._write_turn = asyncio.Lock()
        self._readers: asyncio.LifoQueue[_Connection] = asyncio.LifoQueue()  # so that one does the work of all while it can
        self._closed = False

    async def open(self) -> None:
        """Make the file if it is not there, and see that it is a database."""
        await self._writer.call(lambda: self._writer.raw)
        for _ in range(READERS):
            self._readers.put_nowait(_Connection(self.path, readonly=True))

    async def close(self) -> None:
        """Wait for the transactions that are open, write the log back into the file and close; new ones are refused."""
        self._closed = True
        for _ in range(READERS):
            await (await self._readers.get()).close()
        async with self._write_turn:
            await self._writer.close()

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[Transaction]:
        """A transaction that may change things."""
        self._require_open()
        async with self._write_turn:
            tx = Transaction(self._writer, begin="BEGIN IMMEDIATE")
            try:
                yield tx
            except BaseException:
                await self._writer.call(tx.rollback)
                raise
            await self._writer.call(tx.commit)

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[Transaction]:
        """A transaction that sees one moment and changes nothing."""
        self._require_open()
        reader = await self._readers.get()
        tx = Transaction(reader, begin="BEGIN")
        try:
            yield tx
        finally:
            # Not awaited: the connection's thread does it before whatever the next reader asks of it.
            reader.submit(tx.rollback)
            self._readers.put_nowait(reader)

    def _require_open(self) -> None:
        if self._closed:
            raise Unavailable("The database is closed")

    async def script(self, statements: Sequence[str]) -> None:
        """Run several statements in one transaction (migrations)."""
        async with self.write() as tx:
            for statement in statements:
                await tx.execute(statement)

    async def checkpoint(self) -> None:
        """Bring the file itself up to date, for whoever reads it from outside."""
        async with self._write_turn:
            await self._writer.call(lambda: self._writer.raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
