"""Storage pools, custom volumes and their snapshots."""

from __future__ import annotations

from typing import Any

POOLS = "/1.0/storage-pools"
CUSTOM = f"{POOLS}/pool/volumes/custom"


async def test_pools(app: Any) -> None:
    found = await app.get(f"{POOLS}/pool")
    assert (found["name"], found["driver"], found["status"], found["locations"]) == ("pool", "dir", "Created", ["none"])
    assert found["used_by"] == ["/1.0/profiles/default"]
    await app.do("POST", POOLS, {"name": "other", "driver": "dir", "description": "d"})
    assert await app.get(POOLS) == [f"{POOLS}/other", f"{POOLS}/pool"]
    await app.do("PATCH", f"{POOLS}/other", {"config": {"user.a": "b"}})
    assert (await app.get(f"{POOLS}/other"))["config"]["user.a"] == "b"
    space = await app.get(f"{POOLS}/other/resources")
    assert space["space"]["total"] > space["space"]["used"] > 0
    await app.do("DELETE", f"{POOLS}/other")
    assert await app.get(POOLS) == [f"{POOLS}/pool"]


async def test_a_used_pool_is_not_deleted(app: Any) -> None:
    assert (await app.refused("DELETE", f"{POOLS}/pool"))[0] == 400
    await app.create("c1")
    assert set((await app.get(f"{POOLS}/pool"))["used_by"]) == {"/1.0/instances/c1", "/1.0/profiles/default"}
    assert (await app.refused("DELETE", f"{POOLS}/pool"))[0] == 400


async def test_volumes(app: Any) -> None:
    await app.do("POST", CUSTOM, {"name": "v1", "description": "d", "config": {"size": "1GiB"}})
    found = await app.get(f"{CUSTOM}/v1")
    assert (found["name"], found["type"], found["content_type"], found["description"]) == ("v1", "custom", "filesystem", "d")
    assert found["config"]["size"] == "1GiB" and found["used_by"] == []
    await app.do("PATCH", f"{CUSTOM}/v1", {"config": {"user.a": "b"}})
    assert (await app.get(f"{CUSTOM}/v1"))["config"]["user.a"] == "b"
    await app.do("POST", f"{CUSTOM}/v1", {"name": "v2"})
    assert await app.get(CUSTOM) == [f"{CUSTOM}/v2"]
    await app.create("c1")
    assert len(await app.get(f"{POOLS}/pool/volumes")) == 2
    assert (await app.refused("DELETE", f"{POOLS}/pool/volumes/container/c1"))[0] == 400
    await app.do("DELETE", f"{CUSTOM}/v2")
    assert await app.get(CUSTOM) == []


async def test_a_volume_in_use_stays(app: Any) -> None:
    await app.do("POST", CUSTOM, {"name": "v1"})
    device = {"type": "disk", "pool": "pool", "source": "v1", "path": "/data"}
    await app.create("c1", devices={"data": device})
    assert (await app.get(f"{CUSTOM}/v1"))["used_by"] == ["/1.0/instances/c1"]
    assert (await app.refused("DELETE", f"{CUSTOM}/v1"))[0] == 400
    await app.do("DELETE", "/1.0/instances/c1")
    await app.do("DELETE", f"{CUSTOM}/v1")


async def test_volume_snapshots(app: Any) -> None:
    snapshots = f"{CUSTOM}/v1/snapshots"
    await app.do("POST", CUSTOM, {"name": "v1"})
    await app.do("POST", snapshots, {"name": "s1", "description": "d"})
    await app.do("POST", snapshots, {})
    assert await app.get(snapshots) == [f"{snapshots}/s1", f"{snapshots}/snap0"]
    assert (await app.get(f"{snapshots}/s1"))["description"] == "d"
    await app.do("PUT", f"{snapshots}/s1", {"description": "e", "expires_at": "2100-01-01T00:00:00Z"})
    await app.do("PATCH", f"{snapshots}/s1", {"description": "f"})
    assert (await app.get(f"{snapshots}/s1"))["expires_at"].startswith("2100-")
    await app.do("PUT", f"{snapshots}/s1", {"description": "e"})
    assert (await app.get(f"{snapshots}/s1"))["expires_at"].startswith("0001-")
    await app.do("PUT", f"{CUSTOM}/v1", {"restore": "s1"})
    await app.do("POST", f"{snapshots}/s1", {"name": "s2"})
    await app.do("DELETE", f"{snapshots}/s2")
    assert (await app.refused("POST", snapshots, {"name": "snap0"}))[0] in (400, 409)
    await app.do("DELETE", f"{CUSTOM}/v1")
    assert app.daemon.storage.driver("pool").sizes == {}


async def test_what_is_refused(app: Any) -> None:
    await app.do("POST", CUSTOM, {"name": "v1"})
    assert (await app.refused("POST", CUSTOM, {"name": "v1"}))[0] in (400, 409)
    assert (await app.refused("POST", POOLS, {"name": "pool", "driver": "dir"}))[0] in (400, 409)
    assert (await app.refused("POST", POOLS, {"name": "p", "driver": "no"}))[0] == 400
    assert (await app.refused("POST", POOLS, {"name": "p"}))[0] == 400
    assert (await app.refused("POST", POOLS, {"name": "p", "driver": "dir", "config": {"no": "1"}}))[0] == 400
    assert (await app.refused("POST", CUSTOM, {"name": "v2", "config": {"size": "much"}}))[0] == 400
    assert (await app.refused("POST", CUSTOM, {"name": "v2", "content_type": "no"}))[0] == 400
    assert (await app.refused("GET", f"{POOLS}/absent"))[0] == 404
    assert (await app.refused("GET", f"{POOLS}/absent/volumes"))[0] == 404
    assert (await app.refused("GET", f"{POOLS}/pool/volumes/nonsense"))[0] == 400
    assert (await app.refused("GET", f"{POOLS}/pool/volumes/nonsense/v1"))[0] in (400, 404)
    assert (await app.refused("GET", f"{CUSTOM}/absent"))[0] == 404
    assert await app.get(POOLS) == [f"{POOLS}/pool"]
    assert await app.get(CUSTOM) == [f"{CUSTOM}/v1"]


async def test_volumes_of_a_project_of_its_own(app: Any) -> None:
    await app.do("POST", "/1.0/projects", {"name": "p1"})
    await app.do("POST", f"{CUSTOM}?project=p1", {"name": "v1"})
    assert await app.get(CUSTOM) == []
    assert await app.get(f"{CUSTOM}?project=p1") == [f"{CUSTOM}/v1?project=p1"]
    assert (await app.get("/1.0/projects/p1"))["used_by"] == [
        "/1.0/profiles/default?project=p1",
        "/1.0/storage-pools/pool/volumes/custom/v1?project=p1",
    ]
