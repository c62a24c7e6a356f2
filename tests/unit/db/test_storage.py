"""Rows of storage pools, volumes, networks and warnings."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from atoll.db import networks, storage, warnings
from atoll.db.engine import Database, Transaction
from atoll.domain.errors import Conflict, NotFound


async def new_volume(tx: Transaction, name: str, *, pool: str = "p", type: str = "custom") -> int:
    return await storage.create_volume(
        tx, pool, "default", type, name, config={"size": "1GiB"}, created_at="2026", description="d"
    )


async def test_pools(database: Database) -> None:
    async with database.write() as tx:
        number = await storage.create_pool(tx, "p", "dir", "text", {"source": "/x", "empty": ""})
        found = await storage.pool(tx, "p")
        assert (found.id, found.name, found.driver, found.description, found.config) == (
            number,
            "p",
            "dir",
            "text",
            {"source": "/x"},
        )
        with pytest.raises(Conflict):
            await storage.create_pool(tx, "p", "dir", "", {})
        await storage.update_pool(tx, number, "other", {"a": "b"})
        await storage.create_pool(tx, "a", "overlay", "", {})
        assert [(each.name, each.description, each.config) for each in await storage.pools(tx)] == [
            ("a", "", {}),
            ("p", "other", {"a": "b"}),
        ]
        await new_volume(tx, "v", type="image")
        await new_volume(tx, "v", type="custom")
        with pytest.raises(Conflict):
            await storage.delete_pool(tx, number)
        await storage.delete_volume(tx, (await storage.volume(tx, "p", "default", "custom", "v")).id)
        await storage.delete_pool(tx, number)
        with pytest.raises(NotFound):
            await storage.pool(tx, "p")


async def test_volumes(database: Database) -> None:
    async with database.write() as tx:
        await storage.create_pool(tx, "p", "dir", "", {})
        await storage.create_pool(tx, "q", "dir", "", {})
        number = await new_volume(tx, "v")
        with pytest.raises(Conflict):
            await new_volume(tx, "v")
        found = await storage.volume(tx, "p", "default", "custom", "v")
        assert (found.id, found.pool, found.project, found.name, found.type) == (number, "p", "default", "v", "custom")
        assert (found.content_type, found.description, found.created_at, found.phase, found.member) == (
            "filesystem", "d", "2026", "", "none",
        )  # fmt: skip
        await new_volume(tx, "v", pool="q")
        await new_volume(tx, "c1", type="container")
        assert [(each.pool, each.name) for each in await storage.volumes(tx, type="custom")] == [("p", "v"), ("q", "v")]
        assert [each.name for each in await storage.volumes(tx, pool="p")] == ["c1", "v"]
        assert len(await storage.volumes(tx)) == 3
        assert await storage.volumes(tx, project="absent") == []
        await storage.update_volume(tx, number, "e", {"size": "2GiB"})
        await storage.set_volume_phase(tx, number, "deleting")
        await storage.rename_volume(tx, number, "w")
        changed = await storage.volume(tx, "p", "default", "custom", "w")
        assert changed == dataclasses.replace(found, name="w", description="e", phase="deleting", config={"size": "2GiB"})
        await storage.delete_volume(tx, number)
        with pytest.raises(NotFound):
            await storage.volume(tx, "p", "default", "custom", "w")


async def test_volume_snapshots(database: Database) -> None:
    async with database.write() as tx:
        await storage.create_pool(tx, "p", "dir", "", {})
        await new_volume(tx, "v")
        volume = await storage.volume(tx, "p", "default", "custom", "v")
        dates = {"description": "d", "created_at": "2026", "expires_at": ""}
        number = await storage.create_volume_snapshot(tx, volume, "s1", **dates, phase="creating")
        with pytest.raises(Conflict):
            await storage.create_volume_snapshot(tx, volume, "s1", **dates, phase="")
        found = await storage.volume_snapshot(tx, volume.id, "s1")
        assert (found.id, found.volume_id, found.config, found.phase) == (number, volume.id, {"size": "1GiB"}, "creating")
        await storage.set_volume_snapshot_phase(tx, number, "")
        await storage.update_volume_snapshot(tx, number, description="e", expires_at="2027")
        await storage.rename_volume_snapshot(tx, number, "s2")
        assert await storage.volume_snapshots(tx, volume.id) == [
            dataclasses.replace(found, name="s2", description="e", expires_at="2027", phase="")
        ]
        await storage.delete_volume_snapshot(tx, number)
        with pytest.raises(NotFound):
            await storage.volume_snapshot(tx, volume.id, "s2")


async def test_networks(database: Database) -> None:
    async with database.write() as tx:
        number = await networks.create(tx, "default", "br0", "bridge", "text", {"ipv4.nat": "true"}, state="Pending")
        found = await networks.find(tx, "default", "br0")
        assert (found.id, found.type, found.description, found.state, found.config) == (
            number, "bridge", "text", "Pending", {"ipv4.nat": "true"},
        )  # fmt: skip
        with pytest.raises(Conflict):
            await networks.create(tx, "default", "br0", "bridge", "", {}, state="Created")
        await networks.update(tx, number, "", {})
        await networks.rename(tx, number, "br1")
        changed = dataclasses.replace(found, name="br1", description="", config={})
        assert await networks.find_all(tx) == await networks.find_all(tx, "default") == [changed]
        assert await networks.find_all(tx, "absent") == []
        await networks.delete(tx, number)
        with pytest.raises(NotFound):
            await networks.find(tx, "default", "br1")


async def test_a_warning_counts_and_comes_back(database: Database) -> None:
    async with database.write() as tx:
        about: dict[str, Any] = {"type": "Network unavailable", "project": "default", "entity_url": "/1.0/networks/br0"}
        await warnings.raise_(tx, uuid="u1", severity="high", message="first", now="1", **about)
        await warnings.raise_(tx, uuid="u2", severity="high", message="second", now="2", **about)
        found = await warnings.find(tx, "u1")
        assert (found.count, found.status, found.first_seen_at, found.last_seen_at, found.last_message) == (
            2,
            "new",
            "1",
            "2",
            "second",
        )
        await warnings.set_status(tx, "u1", "acknowledged")
        await warnings.raise_(tx, uuid="u3", severity="high", message="third", now="3", **about)
        assert (await warnings.find(tx, "u1")).status == "acknowledged"
        await warnings.resolve(tx, **about)
        assert (await warnings.find(tx, "u1")).status == "resolved"
        await warnings.raise_(tx, uuid="u4", severity="high", message="again", now="4", **about)
        assert await warnings.find_all(tx) == await warnings.find_all(tx, "default")
        (only,) = await warnings.find_all(tx)
        assert (only.uuid, only.status, only.count) == ("u1", "new", 4)
        assert await warnings.find_all(tx, "other") == []
        await warnings.delete(tx, "u1")
        with pytest.raises(NotFound):
            await warnings.find(tx, "u1")
