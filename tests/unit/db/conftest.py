"""Databases in a temporary folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.db import schema
from atoll.db.engine import Database


@pytest.fixture
async def empty(tmp_path: Path) -> AsyncIterator[Database]:
    """One without tables."""
    database = Database(tmp_path / "empty.db")
    await database.open()
    yield database
    await database.close()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """One with the global schema."""
    database = Database(tmp_path / "db.bin")
    await database.open()
    await schema.migrate(database, schema.GLOBAL)
    yield database
    await database.close()
