"""Storage pools, custom volumes and their snapshots."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from atoll.db import storage as rows
from atoll.domain.entities import StoragePool
from atoll.domain.errors import BadRequest, HostError
from atoll.drivers.storage.sim import SimStorage
from atoll.services.images.unpacked import UnpackedImages
from atoll.services.storage import StorageService

from .conftest import tiny_image

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


async def test_who_uses_a_pool(app: Any) -> None:
    await app.do("POST", "/1.0/projects", {"name": "p1", "config": {"features.profiles": "false"}})
    for query in ("", "?project=p1"):
        await app.create("c1", query=query)
        await app.do("POST", f"/1.0/instances/c1/snapshots{query}", {"name": "s1"})
        await app.do("POST", f"{CUSTOM}{query}", {"name": "v1"})
        await app.do("POST", f"{CUSTOM}/v1/snapshots{query}", {"name": "s2"})
    own = ["/1.0/instances/c1", "/1.0/instances/c1/snapshots/s1", f"{CUSTOM}/v1", f"{CUSTOM}/v1/snapshots/s2"]
    used = [*own, *(f"{each}?project=p1" for each in own), "/1.0/profiles/default"]
    assert (await app.get(f"{POOLS}/pool"))["used_by"] == sorted(used)


async def test_defaults_of_volumes_are_for_new_ones(app: Any) -> None:
    await app.do("POST", CUSTOM, {"name": "v1"})
    defaults = {"volume.size": "1GiB", "volume.snapshots.expiry": "3d", "volume.security.shifted": "true"}
    await app.do("PATCH", f"{POOLS}/pool", {"config": defaults})
    await app.do("POST", CUSTOM, {"name": "v2", "config": {"size": "2GiB"}})
    assert (await app.get(f"{CUSTOM}/v1"))["config"] == {}
    assert (await app.get(f"{CUSTOM}/v2"))["config"] == {
        "size": "2GiB",
        "snapshots.expiry": "3d",
        "security.shifted": "true",
    }
    for key, value in (("volume.block.filesystem", "ext4"), ("volume.zfs.blocksize", "4KiB"), ("nonsense", "1")):
        _, error = await app.refused("PATCH", f"{POOLS}/pool", {"config": {key: value}})
        assert error == f'Invalid option "{key}"'
    _, error = await app.refused("PATCH", f"{POOLS}/pool", {"config": {"volume.size": "much"}})
    assert error.startswith('Invalid value for option "volume.size"')


async def test_two_pools_never_share_a_folder(app: Any) -> None:
    for name in ("a", "b"):
        (app.paths.root / name / "below").mkdir(parents=True)
    source = app.paths.root / "a"
    await app.do("POST", POOLS, {"name": "a", "driver": "dir", "config": {"source": str(source)}})
    async with app.daemon.global_db.write() as tx:  # the simulated pool does not keep where it is
        record = await rows.pool(tx, "a")
        await rows.update_pool(tx, record.id, "", {"source": str(source)})
    (app.paths.root / "link").symlink_to(source)
    for taken in (source, source / "below", app.paths.root, app.paths.root / "link" / "below"):
        _, error = await app.refused("POST", POOLS, {"name": "c", "driver": "dir", "config": {"source": str(taken)}})
        assert error == f"Source path '{taken}' is used by storage pool 'a'"
    await app.do("POST", POOLS, {"name": "b", "driver": "dir", "config": {"source": str(app.paths.root / "b")}})
    (source / "containers").mkdir()
    with pytest.raises(BadRequest, match="is used by storage pool 'a'"):
        async with app.daemon.storage.unknown(StoragePool(0, "recovered", "dir", "", {"source": str(source)})):
            pass


async def test_of_two_that_want_a_folder_at_the_same_time_one_gets_it(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = app.paths.root / "source"
    folder.mkdir()

    async def create_pool(_: object) -> dict[str, str]:
        await asyncio.sleep(0.02)
        return {"source": str(folder)}

    monkeypatch.setattr(SimStorage, "create_pool", create_pool)
    wanted = {"driver": "dir", "config": {"source": str(folder)}}
    answers = await asyncio.gather(*(app.call("POST", POOLS, {"name": name, **wanted}) for name in ("a", "b")))
    assert sorted(status for status, _ in answers) == [201, 400]


async def test_an_image_is_unpacked_once_and_wholly(app: Any) -> None:
    storage: StorageService = app.daemon.storage
    images: UnpackedImages = app.daemon.images.unpacked
    unpacked: list[Path] = []
    broken = True

    async def fill(data: Path) -> None:
        unpacked.append(data)
        await asyncio.sleep(0)
        if broken:
            raise HostError("no space left")

    with pytest.raises(HostError):
        await images.ensure("pool", "f" * 64, fill)
    assert await images.pools_with("f" * 64) == [] and storage.driver("pool").sizes == {}
    broken = False
    found = await asyncio.gather(*(images.ensure("pool", "f" * 64, fill) for _ in range(20)))
    assert len(set(found)) == 1 and len(unpacked) == 2
    assert await app.get(f"{POOLS}/pool/volumes/image") == [f"{POOLS}/pool/volumes/image/{'f' * 64}"]


async def test_a_volume_and_the_deletion_of_its_pool(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever comes first, what was made is not deleted unnoticed."""
    await app.do("POST", POOLS, {"name": "p", "driver": "dir"})
    driver = app.daemon.storage.driver("p")
    real = driver.delete_pool

    async def delete_pool() -> None:
        assert (await app.call("POST", f"{POOLS}/p/volumes/custom", {"name": "v"}))[0] == 503
        root = {"root": {"type": "disk", "pool": "p", "path": "/"}}
        assert (await app.call("POST", "/1.0/instances", {"name": "c", "source": {"type": "none"}, "devices": root}))[0] == 503
        await real()

    monkeypatch.setattr(driver, "delete_pool", delete_pool)
    await app.do("DELETE", f"{POOLS}/p")
    assert await app.get(POOLS) == [f"{POOLS}/pool"]
    await app.do("POST", POOLS, {"name": "p", "driver": "dir"})
    await app.do("POST", f"{POOLS}/p/volumes/custom", {"name": "v"})
    assert (await app.refused("DELETE", f"{POOLS}/p"))[0] == 400
    await app.do("POST", f"{POOLS}/p/volumes/custom", {"name": "w"})


async def test_many_launches_unpack_their_image_once(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked: list[Path] = []

    async def unpack(_: Path, __: object, data: Path, **___: object) -> None:
        unpacked.append(data)
        await asyncio.sleep(0.01)

    octets = {"Content-Type": "application/octet-stream"}
    async with app.session.post("/1.0/images", data=tiny_image(), headers=octets) as answer:
        ended = await app.ended(await answer.json())
        assert ended["err"] == "", ended
        fingerprint = ended["metadata"]["fingerprint"]
    monkeypatch.setattr("atoll.host.archive.unpack_image", unpack)
    source = {"type": "image", "fingerprint": fingerprint}
    started = [await app.call("POST", "/1.0/instances", {"name": f"c{number}", "source": source}) for number in range(20)]
    assert [(await app.ended(content))["err"] for _, content in started] == [""] * 20
    assert (len(unpacked), len(await app.get("/1.0/instances"))) == (1, 20)


async def test_an_instance_whose_snapshots_lack_records_starts_after_their_repair(app: Any) -> None:
    await app.create("c1")
    await app.do("POST", "/1.0/instances/c1/snapshots", {"name": "s1"})
    async with app.daemon.global_db.write() as tx:
        await tx.execute("DELETE FROM storage_volumes_snapshots")
    _, error = await app.refused("PUT", "/1.0/instances/c1/state", {"action": "start"})
    assert error.startswith("Instance snapshot record count doesn't match instance snapshot volume record count")
    await app.restart()
    assert (await app.get(f"{POOLS}/pool/volumes/container/c1/snapshots/s1"))["description"] == "Auto repaired"
    await app.set_state("c1", "start")


async def test_there_are_no_buckets(app: Any) -> None:
    for method in ("GET", "POST"):
        assert (await app.refused(method, f"{POOLS}/pool/buckets", {}))[0] == 404


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
