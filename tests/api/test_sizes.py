"""Sizes of roots and volumes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from atoll.domain.errors import Unsupported
from atoll.drivers.storage.contract import VolumeId, VolumeKind

POOL = "/1.0/storage-pools/pool"
MIB = 1 << 20


def size(app: Any, name: str, kind: VolumeKind = VolumeKind.INSTANCE) -> int | None:
    """What the driver was told last."""
    found: int | None = app.daemon.storage.driver("pool").sizes[VolumeId(kind, "default", name)]
    return found


def root(**keys: str) -> dict[str, dict[str, str]]:
    """Devices: a root disk."""
    return {"root": {"type": "disk", "path": "/", "pool": "pool", **keys}}


async def test_a_root_has_the_size_of_its_disk_or_the_pool_s(app: Any) -> None:
    await app.create("plain")
    await app.do("PATCH", POOL, {"config": {"volume.size": "64MiB"}})
    await app.create("own", devices=root(size="16MiB"))
    await app.create("pools")
    assert (size(app, "plain"), size(app, "own"), size(app, "pools")) == (None, 16 * MIB, 64 * MIB)


async def test_a_change_is_for_the_instances_that_it_concerns(app: Any) -> None:
    await app.create("own", devices=root(size="16MiB"))
    await app.create("profiles")
    await app.do("PUT", "/1.0/profiles/default", {"devices": root(size="32MiB")})
    assert (size(app, "own"), size(app, "profiles")) == (16 * MIB, 32 * MIB)
    await app.do("PATCH", "/1.0/instances/own", {"devices": root(size="48MiB")})
    assert size(app, "own") == 48 * MIB
    await app.do("PATCH", "/1.0/instances/own", {"devices": root()})
    assert size(app, "own") is None


async def test_volumes(app: Any) -> None:
    volumes = f"{POOL}/volumes/custom"
    await app.do("PATCH", POOL, {"config": {"volume.size": "64MiB"}})
    await app.do("POST", volumes, {"name": "own", "config": {"size": "16MiB"}})
    await app.do("POST", volumes, {"name": "pools"})
    assert (size(app, "own", VolumeKind.CUSTOM), size(app, "pools", VolumeKind.CUSTOM)) == (16 * MIB, 64 * MIB)
    assert (await app.get(f"{volumes}/pools"))["config"] == {"size": "64MiB"}
    await app.do("PATCH", f"{volumes}/own", {"config": {"size": "32MiB"}})
    assert size(app, "own", VolumeKind.CUSTOM) == 32 * MIB


async def test_what_a_pool_is_made_of_stays(app: Any) -> None:
    for key in ("size", "source"):
        code, said = await app.refused("PATCH", POOL, {"config": {key: "5GiB"}})
        assert code == 400 and key in said


async def test_a_pool_that_cannot_limit_keeps_the_sizes_and_says_so_once(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = app.daemon.storage.driver("pool")

    async def refuse(_volume: VolumeId, size: int | None) -> None:
        if size is not None:
            raise Unsupported("Nobody counts here")

    limit = driver.set_size
    monkeypatch.setattr(driver, "set_size", refuse)
    monkeypatch.setattr(driver, "capabilities", replace(driver.capabilities, quotas=False))
    await app.create("own", devices=root(size="16MiB"))
    await app.do("PATCH", "/1.0/instances/own", {"devices": root(size="48MiB")})
    await app.do("POST", f"{POOL}/volumes/custom", {"name": "data", "config": {"size": "16MiB"}})
    await app.do("PATCH", f"{POOL}/volumes/custom/data", {"config": {"size": "32MiB"}})
    assert (await app.get("/1.0/instances/own"))["devices"]["root"]["size"] == "48MiB"
    assert (await app.get(f"{POOL}/volumes/custom/data"))["config"]["size"] == "32MiB"
    (warning,) = await app.get("/1.0/warnings?recursion=1")
    assert (warning["type"], warning["entity_url"], warning["count"]) == ("Storage sizes not enforced", POOL, 1)
    assert warning["last_message"] == "Nobody counts here"
    monkeypatch.setattr(driver, "set_size", limit)
    await app.do("PATCH", f"{POOL}/volumes/custom/data", {"config": {"size": "64MiB"}})
    (warning,) = await app.get("/1.0/warnings?recursion=1")
    assert warning["status"] == "resolved"
