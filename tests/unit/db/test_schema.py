"""Migrations."""

from __future__ import annotations

import pytest

from atoll.db import images as image_rows
from atoll.db import profiles as profile_rows
from atoll.db import projects as project_rows
from atoll.db import schema, settings
from atoll.db.engine import Database
from atoll.domain.errors import AtollError

IMAGE = image_rows.NewImage("default", "a" * 64, "container", "", 1, False, "x86_64", 0, 0, 0, False, "unified", {})
FIRST = ["CREATE TABLE a (n INTEGER NOT NULL UNIQUE)", "INSERT INTO a (n) VALUES (1)"]


async def tables(database: Database) -> set[str]:
    async with database.read() as tx:
        return {row[0] for row in await tx.query("SELECT name FROM sqlite_master WHERE type = 'table'")}


async def versions(database: Database) -> list[int]:
    async with database.read() as tx:
        return [row[0] for row in await tx.query("SELECT version FROM schema ORDER BY version")]


@pytest.mark.parametrize(("migrations", "patches"), [(schema.GLOBAL, ()), (schema.LOCAL, schema.PATCHES)])
async def test_a_second_time_changes_nothing(empty: Database, migrations: list[list[str]], patches: tuple[str, ...]) -> None:
    async def dump() -> list[object]:
        async with empty.read() as tx:
            counted = await tx.query("SELECT COUNT(*) FROM config")
            return [await tx.query("SELECT type, name, sql FROM sqlite_master ORDER BY name"), counted]

    assert await schema.migrate(empty, migrations, patches=patches) == len(migrations)
    first = await dump()
    assert await schema.migrate(empty, migrations, patches=patches) == len(migrations)
    assert await dump() == first
    assert await versions(empty) == list(range(1, len(migrations) + 1))


async def test_only_what_is_missing_is_applied(empty: Database) -> None:
    await schema.migrate(empty, [FIRST])
    await schema.migrate(empty, [FIRST, ["CREATE TABLE b (n INTEGER)"]])
    assert {"a", "b"} <= await tables(empty)
    assert await versions(empty) == [1, 2]


async def test_a_step_that_fails_leaves_nothing_and_can_be_repeated(empty: Database) -> None:
    with pytest.raises(AtollError):
        await schema.migrate(empty, [FIRST, ["CREATE TABLE b (n INTEGER)", "INSERT INTO a (n) VALUES (1)"]])
    assert await versions(empty) == [1]
    assert "b" not in await tables(empty)
    await schema.migrate(empty, [FIRST, ["CREATE TABLE b (n INTEGER)"]])
    assert await versions(empty) == [1, 2]


async def test_patches_are_named_once(empty: Database) -> None:
    for _ in range(2):
        await schema.migrate(empty, schema.LOCAL, patches=schema.PATCHES)
    async with empty.read() as tx:
        assert [row[0] for row in await tx.query("SELECT name FROM patches ORDER BY id")] == list(schema.PATCHES)


async def test_what_the_tables_and_views_refer_to_is_there(database: Database) -> None:
    """Nothing refers to a table that is not there, and every view can be read."""
    async with database.read() as tx:
        assert await tx.query("PRAGMA foreign_key_check") == []
        names = await tx.query("SELECT name FROM sqlite_master WHERE type = 'table'")
        known = {name for (name,) in names}
        for table in known:
            referred = {row[2] for row in await tx.query(f"PRAGMA foreign_key_list({table})")}
            assert referred <= known
        for (view,) in await tx.query("SELECT name FROM sqlite_master WHERE type = 'view'"):
            assert await tx.query(f"SELECT * FROM {view}") == []


async def test_settings(database: Database) -> None:
    async with database.write() as tx:
        await settings.store(tx, {"core.https_address": ":8443", "user.a": "1", "user.b": "2"})
        await settings.store(tx, {"user.a": "", "user.b": "3", "user.absent": ""})
        assert await settings.load(tx) == {"core.https_address": ":8443", "user.b": "3"}


async def test_borrowed_images_bring_the_borrowers_default_profile(empty: Database) -> None:
    """What a home of before has: an image whose only profiles are those of its own project."""
    step = next(n for n, statements in enumerate(schema.GLOBAL) if any("lower(c.value)" in text for text in statements))
    await schema.migrate(empty, schema.GLOBAL[:step])
    async with empty.write() as tx:
        await image_rows.create(tx, IMAGE)
        for name, images, profiles in (
            ("p", "false", "true"),
            ("q", "", "true"),
            ("own", "TRUE", "1"),
            ("none", "false", "false"),
        ):
            await project_rows.create(tx, name, "", {"features.images": images, "features.profiles": profiles})
            if profiles != "false":
                await profile_rows.create(tx, name, "default", "", {}, {})
    await schema.migrate(empty, schema.GLOBAL)
    async with empty.read() as tx:
        found = {
            name: (await image_rows.find(tx, "default", "", profiles_of=name)).profiles for name in ("p", "q", "own", "none")
        }
    assert found == {"p": ("default",), "q": ("default",), "own": (), "none": ()}
