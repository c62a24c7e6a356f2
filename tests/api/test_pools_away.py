"""A storage pool that cannot be opened: what still works, what is refused, and what happens when it is back."""

from __future__ import annotations

import asyncio
import datetime
import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from atoll.db import instances as rows
from atoll.db import storage as storage_rows
from atoll.domain.errors import HostError
from atoll.drivers.storage.contract import VolumeId, VolumeKind
from atoll.drivers.storage.sim import SimStorage
from atoll.host import mount
from atoll.runtime import upkeep
from atoll.services.instances.pauses import MARK
from atoll.services.storage import StorageService

POOLS, INSTANCES = "/1.0/storage-pools", "/1.0/instances"
UNAVAILABLE = 'Storage pool "away" unavailable on this server'


needs_btrfs = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mkfs.btrfs") is None, reason="mounts file systems")


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Names of the pools that cannot be opened."""
    names: set[str] = set()
    real = SimStorage.open

    async def open_(self: SimStorage) -> None:
        if self._pool.name in names:
            raise HostError("the disk is not there")
        await real(self)

    monkeypatch.setattr(SimStorage, "open", open_)
    yield names


@pytest.fixture
async def lost(app: Any, away: set[str]) -> Any:
    """A daemon whose pool `away` went away while the daemon did not run; `c1` ran on it, and `here` on the other."""
    await app.do("POST", POOLS, {"name": "away", "driver": "dir"})
    await app.create("c1", devices=root_on("away"))
    await app.create("here")
    await app.do("POST", f"{POOLS}/away/volumes/custom", {"name": "v1"})
    for name in ("c1", "here"):
        await app.do("POST", f"{INSTANCES}/{name}/snapshots", {"name": "s1"})
        await app.do("PATCH", f"{INSTANCES}/{name}", {"config": {"boot.autostart": "true"}})
    return app


def root_on(pool: str) -> dict[str, dict[str, str]]:
    """Devices of an instance whose root is there."""
    return {"root": {"type": "disk", "path": "/", "pool": pool}}


async def restart_without(app: Any, away: set[str]) -> None:
    """The pool is not there when the daemon starts."""
    away.add("away")
    await app.restart()
    async with asyncio.timeout(30):
        while not app.daemon.ready:  # noqa: ASYNC110 - nothing tells that what starts by itself has started
            await asyncio.sleep(0.01)


async def next_minute(app: Any) -> None:
    """What the scheduler does."""
    await upkeep.pool_watch(app.daemon).tick([datetime.datetime.now().astimezone()])


async def test_the_rest_goes_on(lost: Any, away: set[str]) -> None:
    await restart_without(lost, away)
    assert (await lost.get(f"{POOLS}/away"))["status"] == "Unavailable"
    assert (await lost.get(f"{POOLS}/pool"))["status"] == "Created"
    [warning] = await lost.get("/1.0/warnings?recursion=1")
    assert (warning["type"], warning["status"], warning["entity_url"]) == ("Storage pool unavailable", "new", f"{POOLS}/away")
    listed = {each["name"]: each for each in await lost.get(f"{INSTANCES}?recursion=2")}
    assert {name: each["status"] for name, each in listed.items()} == {"c1": "Stopped", "here": "Running"}
    assert [each["name"] for each in listed["c1"]["snapshots"]] == ["s1"]
    assert (await lost.get(f"{INSTANCES}/c1"))["expanded_devices"]["root"]["pool"] == "away"
    assert (await lost.get(f"{INSTANCES}/c1/state"))["status"] == "Stopped"


async def test_a_disk_that_is_failing_is_as_one_that_is_not_there(
    lost: Any, away: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = SimStorage.inventory

    async def inventory(self: SimStorage) -> Sequence[VolumeId]:
        if self._pool.name in away:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return await real(self)

    async def open_(_: SimStorage) -> None:
        return

    monkeypatch.setattr(SimStorage, "inventory", inventory)
    monkeypatch.setattr(SimStorage, "open", open_)
    await restart_without(lost, away)
    assert [each["status"] for each in await lost.get(f"{POOLS}?recursion=1")] == ["Unavailable", "Created"]
    [warning] = await lost.get("/1.0/warnings?recursion=1")
    assert warning["last_message"] == "[Errno 5] Input/output error"


async def test_what_is_refused(lost: Any, away: set[str]) -> None:
    await restart_without(lost, away)
    for method, path, body in (
        ("PUT", f"{INSTANCES}/c1/state", {"action": "start"}),
        ("DELETE", f"{INSTANCES}/c1", None),
        ("GET", f"{POOLS}/away/resources", None),
        ("POST", f"{POOLS}/away/volumes/custom", {"name": "v2"}),
        ("DELETE", f"{POOLS}/away/volumes/custom/v1", None),
        ("POST", INSTANCES, {"name": "c2", "source": {"type": "copy", "source": "here"}, "devices": root_on("away")}),
    ):
        status, content = await lost.call(method, path, body)
        error = (await lost.ended(content))["err"] if status == 202 else content["error"]
        assert (status in (202, 503), error.startswith(UNAVAILABLE)) == (True, True), content
    away.clear()
    await next_minute(lost)
    assert await lost.get(INSTANCES) == [f"{INSTANCES}/c1", f"{INSTANCES}/here"]
    assert [each["name"] for each in await lost.get(f"{POOLS}/away/volumes/custom?recursion=1")] == ["v1"]


async def test_what_runs_on_it_starts_when_it_is_back(lost: Any, away: set[str]) -> None:
    await restart_without(lost, away)
    await next_minute(lost)
    [warning] = await lost.get("/1.0/warnings?recursion=1")
    assert (warning["status"], warning["count"]) == ("new", 2)
    away.clear()
    await next_minute(lost)
    assert (await lost.get(f"{POOLS}/away"))["status"] == "Created"
    assert (await lost.get(f"{INSTANCES}/c1"))["status"] == "Running"
    assert [each["status"] for each in await lost.get("/1.0/warnings?recursion=1")] == ["resolved"]
    await lost.set_state("c1", "stop", force=True)
    await lost.do("DELETE", f"{INSTANCES}/c1")


async def test_what_a_kill_left_is_settled_when_it_is_back(lost: Any, away: set[str]) -> None:
    phases = {"made": "creating", "gone": "deleting", "new": "renaming from old", "c1": "restoring s1"}
    for name in ("made", "gone", "new"):
        await lost.create(name, devices=root_on("away"))
    async with lost.daemon.global_db.write() as tx:
        for name, phase in phases.items():
            await rows.set_phase(tx, (await rows.find(tx, "default", name)).id, phase)
        volume = await storage_rows.volume(tx, "away", "default", "custom", "v1")
        await storage_rows.set_volume_phase(tx, volume.id, "deleting")
    await restart_without(lost, away)
    assert await lost.get(INSTANCES) == [f"{INSTANCES}/{name}" for name in ("c1", "gone", "here", "made", "new")]
    away.clear()
    await next_minute(lost)
    assert await lost.get(f"{POOLS}/away/volumes/custom") == []
    assert await lost.get(INSTANCES) == [f"{INSTANCES}/{name}" for name in ("c1", "here", "new")]
    assert "boot.autostart" not in (await lost.get(f"{INSTANCES}/c1"))["config"]  # the snapshot is older
    for name in ("c1", "new"):
        await lost.set_state(name, "start")


async def test_nobody_uses_it_before_it_is_repaired(lost: Any, away: set[str]) -> None:
    await restart_without(lost, away)
    away.clear()
    storage: StorageService = lost.daemon.storage
    async with storage.reopening("away") as opened:
        assert opened and storage.is_available("away")
        assert (await lost.get(f"{POOLS}/away"))["status"] == "Unavailable"
        assert (await lost.call("PUT", f"{INSTANCES}/c1/state", {"action": "start"}))[0] == 503
    assert (await lost.get(f"{POOLS}/away"))["status"] == "Created"
    async with storage.reopening("away") as opened:
        assert not opened


async def test_a_profile_says_how_large_what_is_on_it_shall_be(
    lost: Any, away: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    await lost.do("POST", "/1.0/profiles", {"name": "p", "devices": root_on("away")})
    await lost.do("PATCH", f"{INSTANCES}/c1", {"profiles": ["p"]})
    record = await lost.get(f"{INSTANCES}/c1")
    await lost.do("PUT", f"{INSTANCES}/c1", {**record, "devices": {}})
    await restart_without(lost, away)
    larger = {"root": {**root_on("away")["root"], "size": "1GiB"}}
    status, content = await lost.call("PUT", "/1.0/profiles/p", {"devices": larger})
    assert (status, f"Instance: c1: {UNAVAILABLE}" in content["error"]) == (500, True)
    assert (await lost.get(f"{INSTANCES}/c1"))["expanded_devices"] == larger
    assert "Undo step failed" not in caplog.text
    await restart_without(lost, away)
    away.clear()
    await next_minute(lost)
    assert lost.daemon.storage.driver("away").sizes[VolumeId(VolumeKind.INSTANCE, "default", "c1")] == 1 << 30
    assert "volatile.root.apply_quota" not in (await lost.get(f"{INSTANCES}/c1"))["config"]


async def test_when_it_is_back_guests_of_others_stay_paused(lost: Any, away: set[str]) -> None:
    """Somebody is just taking a snapshot of one."""
    await restart_without(lost, away)
    await lost.set_state("here", "freeze")
    mark = lost.paths.run("default_here") / MARK
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    away.clear()
    await next_minute(lost)
    assert ((await lost.get(f"{INSTANCES}/here"))["status"], mark.exists()) == ("Frozen", True)


async def test_images_that_nobody_knows_are_removed(lost: Any, away: set[str]) -> None:
    orphan = VolumeId(VolumeKind.IMAGE, "default", "f" * 64)
    await restart_without(lost, away)
    away.clear()
    driver = lost.daemon.storage._make(await lost.daemon.storage.find("away"))
    await driver.create(orphan)
    lost.daemon.storage._make = lambda _: driver
    await next_minute(lost)
    assert orphan not in driver.sizes
    assert VolumeId(VolumeKind.INSTANCE, "default", "c1") in driver.sizes


@needs_btrfs
async def test_real_pools_whose_place_is_not_there(app: Any) -> None:
    folder = app.paths.root.parent / f"{app.paths.root.name}.source"
    places = {"file": app.paths.root / "disks" / "file.img", "folder": folder}
    folder.mkdir()
    try:
        await app.do("POST", POOLS, {"name": "file", "driver": "btrfs", "config": {"size": "128MiB"}})
        await app.do("POST", POOLS, {"name": "folder", "driver": "overlay", "config": {"source": str(folder)}})
        for name in places:
            await app.create(name, devices=root_on(name), config={"boot.autostart": "true"})
        await app.stop()
        for path in places.values():
            path.rename(path.with_suffix(".away"))
        folder.mkdir()  # as if the file system that is mounted there were not
        app.daemon = type(app.daemon)(app.paths, driver="sim")
        await app.start()
        assert {each["name"]: each["status"] for each in await app.get(f"{POOLS}?recursion=1")} == {
            "file": "Unavailable",
            "folder": "Unavailable",
            "pool": "Created",
        }
        messages = sorted(each["last_message"] for each in await app.get("/1.0/warnings?recursion=1"))
        assert [("file.img" in messages[0]), ("is it mounted?" in messages[1])] == [True, True]
        assert list(folder.iterdir()) == []
        folder.rmdir()
        for path in places.values():
            path.with_suffix(".away").rename(path)
        await next_minute(app)
        assert {each["status"] for each in await app.get(f"{POOLS}?recursion=1")} == {"Created"}
        for name in places:
            assert (await app.get(f"{INSTANCES}/{name}"))["status"] == "Running"
            await app.set_state(name, "stop", force=True)
            await app.do("DELETE", f"{INSTANCES}/{name}")
            await app.do("DELETE", f"{POOLS}/{name}")
    finally:
        await app.daemon.storage.stop()
        for path in (folder, folder.with_suffix(".away")):
            shutil.rmtree(path, ignore_errors=True)


@needs_btrfs
async def test_what_a_kill_leaves_of_a_pool_is_removed(app: Any) -> None:
    disks = app.paths.root / "disks"
    for name in ("made", "gone"):
        await app.do("POST", POOLS, {"name": name, "driver": "btrfs", "config": {"size": "128MiB"}})
    async with app.daemon.global_db.write() as tx:
        made, gone = [await storage_rows.pool(tx, name) for name in ("made", "gone")]
        await storage_rows.update_pool(tx, made.id, "", {"size": "128MiB"})  # what is decided is written last
        await storage_rows.set_pool_phase(tx, made.id, "creating")
        await storage_rows.set_pool_phase(tx, gone.id, "deleting")
    assert await app.get(POOLS) == [f"{POOLS}/gone", f"{POOLS}/pool"]
    assert (await app.refused("GET", f"{POOLS}/made"))[0] == 404
    (disks / "gone.img").unlink()
    await app.restart()
    assert await app.get(POOLS) == [f"{POOLS}/pool"]
    assert list(disks.iterdir()) == [] == mount.mounts_below(app.paths.pools)
    assert not (app.paths.pools / "made").exists()
    await app.do("POST", POOLS, {"name": "made", "driver": "btrfs", "config": {"size": "128MiB"}})
    await app.do("DELETE", f"{POOLS}/made")


async def test_a_pool_that_cannot_be_made_takes_nothing_along(app: Any) -> None:
    lost = app.paths.root / "disks" / "lost.img"
    lost.parent.mkdir(exist_ok=True)
    lost.touch()
    assert (await app.refused("POST", POOLS, {"name": "lost", "driver": "btrfs"}))[0] == 409
    (app.paths.pools / "full" / "containers").mkdir(parents=True)
    assert (await app.refused("POST", POOLS, {"name": "full", "driver": "dir"}))[0] == 409
    await app.restart()
    assert lost.exists() and (app.paths.pools / "full" / "containers").exists()
    assert await app.get(POOLS) == [f"{POOLS}/pool"]
