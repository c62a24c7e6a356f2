"""Rows of snapshots: which are due and which expired, and what instances' volumes have of them."""

from __future__ import annotations

import pytest

from atoll.db import instance_volumes, instances, profiles, schema, snapshot_plans, storage
from atoll.db.engine import Database, Transaction
from atoll.db.instances import NewInstance

NOW = "2026-06-01T00:00:00.000000Z"


async def new_instance(tx: Transaction, name: str, schedule: str = "", *, used: tuple[str, ...] = ("default",)) -> int:
    config = {"snapshots.schedule": schedule}
    return await instances.create(
        tx, NewInstance("default", name, "container", "x86_64", False, "", NOW, config, {}, used, "default", "")
    )


async def new_snapshot(tx: Transaction, instance: str, name: str, *, expires_at: str = "", phase: str = "") -> int:
    found = await instances.find(tx, "default", instance)
    return await instances.create_snapshot(tx, found, name, created_at=NOW, expires_at=expires_at, phase=phase)


async def new_volume(tx: Transaction, name: str, type: str, **config: str) -> int:
    return await storage.create_volume(tx, "p", "default", type, name, config=config, created_at=NOW, description="d")


async def test_schedules_of_instances(database: Database) -> None:
    async with database.write() as tx:
        for name, config in (
            ("daily", {"snapshots.schedule": "@daily"}),
            ("weekly", {"snapshots.schedule": "@weekly"}),
            ("no", {}),
        ):
            await profiles.create(tx, "default", name, "", config, {})
        await new_instance(tx, "none")
        await new_instance(tx, "last", used=("daily", "weekly", "no"))
        await new_instance(tx, "own", "@hourly", used=("daily",))
        busy = await new_instance(tx, "busy", "@hourly")
        await instances.set_phase(tx, busy, "creating")
        assert await snapshot_plans.scheduled_instances(tx) == [("default", "last", "@weekly"), ("default", "own", "@hourly")]


async def test_schedules_of_volumes(database: Database) -> None:
    async with database.write() as tx:
        await storage.create_pool(tx, "p", "dir", "", {})
        await new_volume(tx, "v", "custom", **{"snapshots.schedule": "@hourly"})
        await new_volume(tx, "w", "custom")
        assert await snapshot_plans.scheduled_volumes(tx) == [("p", "default", "v", "@hourly")]


@pytest.mark.parametrize(
    ("expires_at", "phase", "expired"),
    [
        ("", "", False),
        ("0001-01-01T00:00:00Z", "", False),
        ("2026-05-31T23:59:59.999999Z", "", True),
        ("2026-05-31T23:59:59Z", "", True),
        (NOW, "", True),
        ("2026-06-01T00:00:00.000001Z", "", False),
        ("2026-05-31T00:00:00Z", "creating", False),
    ],
)
async def test_expiry(database: Database, expires_at: str, phase: str, *, expired: bool) -> None:
    async with database.write() as tx:
        await storage.create_pool(tx, "p", "dir", "", {})
        await new_instance(tx, "c1")
        await new_volume(tx, "c1", "container")
        await new_volume(tx, "v", "custom")
        await new_snapshot(tx, "c1", "s", expires_at=expires_at, phase=phase)
        volume = await storage.volume(tx, "p", "default", "custom", "v")
        await storage.create_volume_snapshot(tx, volume, "s", description="", created_at=NOW, expires_at=expires_at, phase=phase)
        assert await snapshot_plans.expired_of_instances(tx, NOW) == ([("default", "c1", "s")] if expired else [])
        assert await snapshot_plans.expired_of_volumes(tx, NOW) == ([("p", "default", "v", "s")] if expired else [])


async def test_the_volume_has_what_the_instance_has(database: Database) -> None:
    async with database.write() as tx:
        await storage.create_pool(tx, "p", "dir", "", {})
        await new_instance(tx, "c1")
        volume_id = await new_volume(tx, "c1", "container", **{"user.a": "old"})
        snapshot = await new_snapshot(tx, "c1", "s")
        await storage.update_volume(tx, volume_id, "changed", {"user.a": "new", "user.b": "c"})
        await instances.rename_snapshot(tx, snapshot, "t")
        (found,) = await storage.volume_snapshots(tx, volume_id)
        assert (found.name, found.description, found.config, found.expires_at) == ("t", "d", {"user.a": "old"}, "")
        await instance_volumes.restore(tx, snapshot)
        volume = await storage.volume(tx, "p", "default", "container", "c1")
        assert (volume.description, volume.config) == ("d", {"user.a": "old"})
        await instances.delete_snapshot(tx, snapshot)
        assert await storage.volume_snapshots(tx, volume_id) == []


async def test_an_instance_without_a_volume_can_have_snapshots(database: Database) -> None:
    async with database.write() as tx:
        await new_instance(tx, "c1")
        snapshot = await new_snapshot(tx, "c1", "s")
        await instance_volumes.restore(tx, snapshot)
        await instances.rename_snapshot(tx, snapshot, "t")
        await instances.delete_snapshot(tx, snapshot)


async def test_older_snapshots_get_their_volumes(empty: Database) -> None:
    await schema.migrate(empty, schema.GLOBAL)
    async with empty.write() as tx:  # as the first version of the tables had it
        await storage.create_pool(tx, "p", "dir", "", {})
        await new_instance(tx, "c1")
        volume_id = await new_volume(tx, "c1", "container", **{"user.a": "b"})
        await new_snapshot(tx, "c1", "s")
        await tx.execute("DELETE FROM storage_volumes_snapshots")
        await tx.execute("DELETE FROM schema WHERE version > 1")
    await schema.migrate(empty, schema.GLOBAL[:2])
    async with empty.read() as tx:
        (found,) = await storage.volume_snapshots(tx, volume_id)
    assert (found.name, found.description, found.config) == ("s", "d", {"user.a": "b"})
