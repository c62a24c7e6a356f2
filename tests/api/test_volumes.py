"""Custom volumes as wholes: copies, refreshed copies, moves, and what a kill in between leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest

from atoll.domain.caller import Caller, Protocol
from atoll.drivers.storage.contract import VolumeId, VolumeKind
from atoll.drivers.storage.sim import SimStorage
from atoll.services.sites import Site

POOLS = "/1.0/storage-pools"
CUSTOM, OTHER = f"{POOLS}/pool/volumes/custom", f"{POOLS}/other/volumes/custom"
DISK = {"type": "disk", "pool": "pool", "source": "v1", "path": "/data"}


@pytest.fixture
async def pools(app: Any) -> AsyncIterator[Any]:
    """Two pools; in the first a volume with two snapshots, each of another configuration. Whatever a test does, in the end the
    drivers have what the database knows."""
    await app.do("POST", POOLS, {"name": "other", "driver": "dir"})
    await app.do("POST", CUSTOM, {"name": "v1", "description": "d", "config": {"user.a": "0"}})
    for number in range(2):
        await app.do("POST", f"{CUSTOM}/v1/snapshots", {"expires_at": "2100-01-01T00:00:00Z"})
        await app.do("PATCH", f"{CUSTOM}/v1", {"config": {"user.a": str(number + 1)}})
    yield app
    for each in await app.get("/1.0/instances?recursion=1"):
        if each["status"] == "Running":
            await app.set_state(each["name"], "stop", force=True)
    for pool in ("pool", "other"):
        found = [
            (each["name"].partition("/"), each["project"])
            for each in await app.get(f"{POOLS}/{pool}/volumes/custom?recursion=1&all-projects=true")
        ]
        known = {volume(name, project, snapshot) for (name, _, snapshot), project in found}
        assert {one for one in app.daemon.storage.driver(pool).sizes if one.kind is VolumeKind.CUSTOM} == known


def volume(name: str, project: str = "default", snapshot: str = "") -> VolumeId:
    return VolumeId(VolumeKind.CUSTOM, project, name, snapshot)


def copy_of(name: str, new: str, **fields: Any) -> dict[str, Any]:
    return {"name": new, "source": {"type": "copy", "pool": "pool", "name": name, **fields}}


async def values(app: Any, path: str, query: str = "") -> list[str]:
    """What user.a is in the snapshots, oldest first, and now."""
    found = await app.get(f"{path}/snapshots?recursion=1{query.replace('?', '&')}")
    return [*(each["config"]["user.a"] for each in found), (await app.get(path + query))["config"]["user.a"]]


async def run_on(app: Any, name: str) -> None:
    """A running instance that has the volume."""
    app.daemon.storage.driver("pool").data(volume(name)).mkdir(parents=True)
    await app.create("c1", devices={"data": {**DISK, "source": name}})
    await app.set_state("c1", "start")


# Copies


async def test_a_copy_has_all_that_the_volume_has(pools: Any) -> None:
    for target in (CUSTOM, OTHER):
        ended = await pools.do("POST", target, copy_of("v1", "v2"))
        assert (ended["description"], ended["resources"]) == ("Copying storage volume", {"storage_volumes": [f"{target}/v2"]})
        assert await values(pools, f"{target}/v2") == ["0", "1", "2"]
        assert (await pools.get(f"{target}/v2"))["description"] == "d"
        old, new = [await pools.get(f"{base}/snapshots/snap0") for base in (f"{CUSTOM}/v1", f"{target}/v2")]
        assert new == old and new["expires_at"].startswith("2100-")


async def test_copies_of_a_part(pools: Any) -> None:
    await pools.do("POST", OTHER, copy_of("v1", "alone", volume_only=True))
    await pools.do("POST", OTHER, copy_of("v1/snap0", "then"))
    assert await values(pools, f"{OTHER}/alone") == ["2"]
    assert await values(pools, f"{OTHER}/then") == ["0"]


async def test_what_is_asked_for_goes_before_what_the_source_has(pools: Any) -> None:
    body = copy_of("v1", "v2") | {"config": {"size": "1GiB", "lvm.stripes": "1"}, "description": "mine"}
    await pools.do("POST", OTHER, body)
    found = await pools.get(f"{OTHER}/v2")
    assert (found["config"], found["description"]) == ({"size": "1GiB"}, "mine")
    assert pools.daemon.storage.driver("other").sizes[volume("v2")] == 1 << 30
    await pools.do("DELETE", f"{OTHER}/v2")


async def test_to_another_project_and_back(pools: Any) -> None:
    await pools.do("POST", "/1.0/projects", {"name": "p1"})
    await pools.do("POST", "/1.0/projects", {"name": "p2", "config": {"features.storage.volumes": "false"}})
    await pools.do("POST", f"{CUSTOM}?project=p1", copy_of("v1", "v1", project="default"))
    assert await values(pools, f"{CUSTOM}/v1", "?project=p1") == ["0", "1", "2"]
    await pools.do("POST", f"{CUSTOM}?project=p2", copy_of("v1", "v2", project="p1"))
    assert (await pools.get(f"{CUSTOM}/v2"))["project"] == "default"
    pools.caller = Caller(Protocol.TLS, "somebody", trusted=True, restricted=True, projects=frozenset({"p1"}))
    stolen = await pools.refused("POST", f"{CUSTOM}?project=p1", copy_of("v1", "v3", project="default"))
    moved = await pools.refused("POST", f"{CUSTOM}/v1?project=p1", {"name": "v1", "project": "default"})
    pools.caller = None
    assert stolen == moved == (403, "Not authorized")


BAD = [
    (copy_of("v1", "v1"), 409, "Volume by that name already exists"),
    (copy_of("absent", "v2"), 404, "Storage volume not found"),
    (copy_of("v1/absent", "v2"), 404, "Storage volume snapshot not found"),
    (copy_of("v1", "v2", pool="absent"), 404, "Storage pool not found"),
    (copy_of("v1", "v2", project="absent"), 404, "Project not found"),
    (copy_of("v1", "v2") | {"content_type": "block"}, 400, "content types do not match"),
    (copy_of("v1", "v2") | {"type": "image"}, 400, "Currently not allowed"),
    ({"name": "v2", "source": {"type": "nonsense", "name": "v1"}}, 400, "unknown source type 'nonsense'"),
    ({"name": "v2", "source": {"type": "migration", "name": "v1"}}, 400, "operation: the https:// address"),
    ({"name": "v2", "content_type": "nonsense"}, 400, "Invalid volume content type name 'nonsense'"),
    ({"name": "v2", "content_type": "iso"}, 400, "made by importing"),
]
NAMES = ("..", "../x", "a/b", "/abs", "a b", "-rf", "a\nb", "a\0b", "x" * 200)


async def test_copies_that_cannot_be(pools: Any) -> None:
    for body, status, text in BAD:
        found = await pools.refused("POST", f"{POOLS}/pool/volumes", body)
        assert found[0] == status and text in found[1], body
    for name in NAMES:
        assert (await pools.refused("POST", CUSTOM, copy_of("v1", name)))[0] == 400
        assert (await pools.refused("POST", CUSTOM, copy_of("v1", "v2", pool=name)))[0] == 400
        assert (await pools.refused("POST", CUSTOM, copy_of("v1", "v2", project=name)))[0] in (400, 404)
        assert (await pools.refused("POST", CUSTOM, copy_of(f"v1/{name}", "v2")))[0] in (400, 404)
        for field in ("name", "pool", "project"):
            assert (await pools.refused("POST", f"{CUSTOM}/v1", {"name": "v2", field: name}))[0] in (400, 404)
    assert {path.rpartition("/snapshots/")[0] or path for path in await pools.get(CUSTOM)} == {f"{CUSTOM}/v1"}


async def test_a_copy_that_fails_leaves_nothing(pools: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SimStorage, "create", fail)
    _, ended = await pools.call("POST", OTHER, copy_of("v1", "v2"))
    assert (await pools.ended(ended))["status"] == "Failure"
    assert await pools.get(OTHER) == []


async def test_what_only_the_disk_knows_is_not_taken_along(pools: Any) -> None:
    file = pools.daemon.storage.driver("other").data(volume("v1")) / "file"
    file.parent.mkdir(parents=True)
    file.write_text("precious")
    for method, path, body in (
        ("POST", OTHER, {"name": "v1"}),
        ("POST", OTHER, copy_of("v1", "v1")),
        ("POST", f"{CUSTOM}/v1", {"name": "v1", "pool": "other"}),
    ):
        status, text = await pools.refused(method, path, body)
        assert "is on disk but not in the database" in text and status in (400, 409)
    await pools.restart()
    assert file.read_text() == "precious"


# Refreshes


@pytest.mark.parametrize("target", [CUSTOM, OTHER])
async def test_a_refresh_brings_and_removes_snapshots(pools: Any, target: str) -> None:
    again = copy_of("v1", "v2", refresh=True)
    assert (await pools.do("POST", target, again))["description"] == "Copying storage volume"
    await pools.do("POST", f"{target}/v2/snapshots", {"name": "mine"})
    await pools.do("PATCH", f"{target}/v2", {"config": {"user.a": "own"}})
    await pools.do("POST", f"{CUSTOM}/v1/snapshots", {"name": "later"})
    await pools.do("DELETE", f"{CUSTOM}/v1/snapshots/snap0")
    assert (await pools.do("POST", target, again))["description"] == "Copying storage volume"
    names = [each.rpartition("/")[2] for each in await pools.get(f"{target}/v2/snapshots")]
    assert names == ["snap1", "later"]
    assert await values(pools, f"{target}/v2") == ["1", "2", "own"]


async def test_refreshes_that_cannot_be(pools: Any) -> None:
    assert "from itself" in (await pools.refused("POST", CUSTOM, copy_of("v1", "v1", refresh=True)))[1]
    await pools.do("POST", CUSTOM, {"name": "v2"})
    assert "not snapshots" in (await pools.refused("POST", CUSTOM, copy_of("v1/snap0", "v2", refresh=True)))[1]
    await run_on(pools, "v2")
    _, text = await pools.refused("POST", CUSTOM, copy_of("v1", "v2", refresh=True))
    assert text == "Volume is still in use by running instances"


async def test_what_runs_is_copied_from_a_snapshot_of_its_own(pools: Any) -> None:
    await run_on(pools, "v1")
    await pools.do("POST", OTHER, copy_of("v1", "v2"))
    assert await values(pools, f"{OTHER}/v2") == ["0", "1", "2"]


# Moves


async def test_a_rename_takes_the_disks_along(pools: Any) -> None:
    await pools.create("c1", devices={"data": DISK})
    await pools.do("POST", "/1.0/profiles", {"name": "p", "devices": {"data": DISK}})
    await pools.do("POST", f"{CUSTOM}/v1/backups", {"name": "b"})
    answer = await pools.do("POST", f"{CUSTOM}/v1", {"name": "v2"})
    assert answer["type"] == "sync"
    assert (await pools.get("/1.0/instances/c1"))["devices"]["data"]["source"] == "v2"
    assert (await pools.get("/1.0/profiles/p"))["devices"]["data"]["source"] == "v2"
    assert (await pools.get(f"{CUSTOM}/v2"))["used_by"] == ["/1.0/instances/c1", "/1.0/profiles/p"]
    assert await pools.get(f"{CUSTOM}/v2/backups") == [f"{CUSTOM}/v2/backups/b"]
    assert [path.name for path in (pools.paths.backups / "custom/pool").iterdir()] == ["default_v2"]
    assert (await pools.refused("GET", f"{CUSTOM}/v1"))[0] == 404


async def test_a_move_to_another_pool(pools: Any) -> None:
    await pools.create("c1", devices={"data": DISK})
    await pools.do("POST", f"{CUSTOM}/v1/backups", {"name": "b"})
    ended = await pools.do("POST", f"{CUSTOM}/v1", {"name": "v2", "pool": "other"})
    assert ended["description"] == "Moving storage volume"
    assert await pools.get(CUSTOM) == []
    assert await values(pools, f"{OTHER}/v2") == ["0", "1", "2"]
    device = (await pools.get("/1.0/instances/c1"))["devices"]["data"]
    assert (device["pool"], device["source"]) == ("other", "v2")
    assert await pools.get(f"{OTHER}/v2/backups") == [f"{OTHER}/v2/backups/b"]
    await pools.do("POST", f"{OTHER}/v2", {"name": "v1", "pool": "pool", "volume_only": True})
    assert await values(pools, f"{CUSTOM}/v1") == ["2"]


async def test_a_move_to_another_project(pools: Any) -> None:
    await pools.do("POST", "/1.0/projects", {"name": "p1"})
    await pools.create("c1", devices={"data": DISK})
    assert "still in use" in (await pools.refused("POST", f"{CUSTOM}/v1", {"name": "v1", "project": "p1"}))[1]
    await pools.do("DELETE", "/1.0/instances/c1")
    await pools.do("POST", f"{CUSTOM}/v1", {"name": "v1", "project": "p1"})
    assert await pools.get(CUSTOM) == []
    assert await values(pools, f"{CUSTOM}/v1", "?project=p1") == ["0", "1", "2"]


async def test_what_cannot_move(pools: Any) -> None:
    await pools.do("POST", CUSTOM, {"name": "taken"})
    for body in ({"name": "taken"}, {"name": "v1"}):
        assert await pools.refused("POST", f"{CUSTOM}/v1", body) == (409, "Volume by that name already exists")
    assert (await pools.refused("POST", f"{CUSTOM}/v1", {"name": "v1", "pool": "absent"}))[0] == 404
    assert (await pools.refused("POST", f"{CUSTOM}/v1", {"name": "v1", "project": "absent"}))[0] == 404
    await run_on(pools, "v1")
    for body in ({"name": "v2"}, {"name": "v1", "pool": "other"}):
        text = "Volume is still in use by running instances"
        assert await pools.refused("POST", f"{CUSTOM}/v1", body) == (400, text)
    assert (await pools.refused("PUT", f"{CUSTOM}/v1", {"restore": "snap0"}))[0] == 400
    assert (await pools.refused("DELETE", f"{CUSTOM}/v1"))[1].startswith("The storage volume is still in use")


# What a kill leaves


async def restarted(app: Any, phase: str, name: str = "v1") -> None:
    """The daemon's next start, after one that ended while a row had that phase."""
    await sql(app, f"UPDATE storage_volumes SET phase = '{phase}' WHERE name = '{name}'")
    await app.restart()


async def sql(app: Any, query: str) -> None:
    await app.do("POST", "/internal/sql", {"database": "global", "query": query})


async def test_half_a_volume_goes(pools: Any) -> None:
    await pools.do("POST", OTHER, copy_of("v1", "v2"))
    await pools.do("POST", f"{CUSTOM}/v1/backups", {"name": "b"})
    await sql(pools, "UPDATE storage_volumes SET phase = 'creating' WHERE name = 'v2'")
    await restarted(pools, "deleting")
    assert await pools.get(CUSTOM) == await pools.get(OTHER) == []
    assert not (pools.paths.backups / "custom/pool/default_v1").exists()


async def test_records_that_an_instances_snapshots_lack_are_added(pools: Any) -> None:
    await pools.create("c1")
    await pools.do("POST", "/1.0/instances/c1/snapshots", {"name": "s"})
    await sql(pools, "DELETE FROM storage_volumes_snapshots WHERE name = 's'")
    await pools.restart()
    assert (await pools.get(f"{POOLS}/pool/volumes/container/c1/snapshots/s"))["description"] == "Auto repaired"


async def test_half_a_snapshot_goes(pools: Any) -> None:
    await sql(pools, "UPDATE storage_volumes_snapshots SET phase = 'creating' WHERE name = 'snap0'")
    assert await pools.get(f"{CUSTOM}/v1/snapshots") == [f"{CUSTOM}/v1/snapshots/snap1"]
    await pools.restart()
    assert await values(pools, f"{CUSTOM}/v1") == ["1", "2"]


async def test_half_a_refresh_is_let_go(pools: Any) -> None:
    await sql(pools, "UPDATE storage_volumes_snapshots SET phase = 'creating' WHERE name = 'snap1'")
    await restarted(pools, "refreshing")
    assert await values(pools, f"{CUSTOM}/v1") == ["0", "2"]


async def test_a_move_that_had_not_arrived_is_undone(pools: Any) -> None:
    await restarted(pools, "moving to " + Site("other", "default", "v2", ("snap0", "snap1")).to_text())
    assert await values(pools, f"{CUSTOM}/v1") == ["0", "1", "2"]
    await pools.do("POST", f"{CUSTOM}/v1", {"name": "v2"})


async def test_a_move_that_had_arrived_is_finished(pools: Any) -> None:
    await pools.do("POST", f"{CUSTOM}/v1/backups", {"name": "b"})
    await sql(pools, "UPDATE storage_volumes SET storage_pool_id = (SELECT id FROM storage_pools WHERE name = 'other')")
    await restarted(pools, "moved from " + Site("pool", "default", "v1", ("snap0", "snap1")).to_text())
    assert await pools.get(CUSTOM) == []
    assert await values(pools, f"{OTHER}/v1") == ["0", "1", "2"]
    assert (pools.paths.backups / "custom/other/default_v1/b").is_file()


async def test_nothing_else_is_done_to_a_volume_that_moves(pools: Any) -> None:
    """What waits for it meets it where it is then."""
    moving = await pools.call("POST", f"{CUSTOM}/v1", {"name": "v2", "pool": "other"})
    snapshot = await pools.call("POST", f"{CUSTOM}/v1/snapshots", {"name": "s"})
    ended = await asyncio.gather(*(pools.ended(content) for _, content in (moving, snapshot)))
    assert [each["status"] for each in ended] == ["Success", "Success"]
    assert (await pools.get(f"{OTHER}/v2/snapshots"))[-1] == f"{OTHER}/v2/snapshots/s"


# Lists, sizes and usage


async def test_lists_have_the_snapshots_behind_each_volume(pools: Any) -> None:
    await pools.create("c1")
    await pools.do("POST", "/1.0/instances/c1/snapshots", {"name": "s"})
    assert await pools.get(CUSTOM) == [f"{CUSTOM}/v1", *(f"{CUSTOM}/v1/snapshots/snap{n}" for n in range(2))]
    listed = await pools.get(f"{POOLS}/pool/volumes?recursion=1")
    assert [(each["name"], each["config"].get("user.a"), each["used_by"]) for each in listed] == [
        ("c1", None, ["/1.0/instances/c1"]),
        ("c1/s", None, ["/1.0/instances/c1/snapshots/s"]),
        ("v1", "2", []),
        ("v1/snap0", "0", []),
        ("v1/snap1", "1", []),
    ]
    assert await pools.get(f"{CUSTOM}?filter=config.user.a eq 1") == [f"{CUSTOM}/v1/snapshots/snap1"]


async def test_odd_names_are_escaped_in_urls(pools: Any) -> None:
    for name in ("a%b", "a?b#c", "é", "a&b=c"):
        path = f"{OTHER}/{quote(name, safe='&=')}"
        await pools.do("POST", OTHER, {"name": name})
        await pools.do("POST", f"{path}/snapshots", {"name": "s%1"})
        assert await pools.get(OTHER) == [path, f"{path}/snapshots/s%251"]
        assert await pools.get(f"{path}/snapshots") == [f"{path}/snapshots/s%251"]
        assert (await pools.get(path))["name"] == name
        await pools.do("DELETE", path)


async def test_how_ids_are_shown_stays_while_an_instance_runs(pools: Any) -> None:
    both = {"security.shifted": "true", "security.unmapped": "yes"}
    for refused in (
        await pools.refused("POST", CUSTOM, {"name": "v2", "config": both}),
        await pools.refused("PATCH", f"{CUSTOM}/v1", {"config": both}),
    ):
        assert refused == (400, "security.shifted and security.unmapped are mutually exclusive")
    await pools.do("PATCH", f"{CUSTOM}/v1", {"config": {"security.shifted": "true"}})
    await run_on(pools, "v1")
    await pools.do("PATCH", f"{CUSTOM}/v1", {"config": {"security.shifted": "1", "user.a": "x"}})
    for config in ({}, {"security.unmapped": "true"}):
        refused = await pools.refused("PUT", f"{CUSTOM}/v1", {"config": config})
        assert refused == (400, "Cannot modify shifting with running instances using the volume")
    for key, says in (("security.shifted", "Invalid option"), ("size", "not valid for volume type")):
        body = {"config": {key: "1"}}
        assert says in (await pools.refused("PATCH", f"{POOLS}/pool/volumes/container/c1", body))[1]
    await pools.set_state("c1", "stop", force=True)
    await pools.do("PUT", f"{CUSTOM}/v1", {"config": {"security.unmapped": "true"}})


async def test_usage_and_sizes(pools: Any) -> None:
    assert await pools.get(f"{CUSTOM}/v1/state") == {"usage": {"used": 0, "total": 0}}
    await pools.do("PATCH", f"{CUSTOM}/v1", {"config": {"size": "1GiB"}})
    assert await pools.get(f"{CUSTOM}/v1/state") == {"usage": {"used": 0, "total": 1 << 30}}
    assert pools.daemon.storage.driver("pool").sizes[volume("v1")] == 1 << 30
    await pools.do("PUT", f"{CUSTOM}/v1", {"config": {"user.a": "2"}})
    assert pools.daemon.storage.driver("pool").sizes[volume("v1")] is None
