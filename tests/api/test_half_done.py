"""What an undo that fails itself leaves half done: it is not lost, settled within a minute, and who is at work is left alone."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from atoll.db import backups as backup_rows
from atoll.db import storage as rows
from atoll.db.backups import Table
from atoll.db.engine import Transaction
from atoll.domain.errors import Conflict
from atoll.drivers.instance.contract import MachineId
from atoll.drivers.storage.contract import VolumeId, VolumeKind
from atoll.drivers.storage.sim import SimStorage
from atoll.runtime import upkeep
from atoll.services.instances.backup_files import BackupFiles
from atoll.services.instances.snapshot_restore import SnapshotRestore

INSTANCES, POOLS = "/1.0/instances", "/1.0/storage-pools"
C1, VOLUMES = f"{INSTANCES}/c1", f"{POOLS}/pool/volumes/custom"
V1 = f"{VOLUMES}/v1"
FAILED = (400, 409)
"""An operation's, and a request's."""
OF_INSTANCE = VolumeId(VolumeKind.INSTANCE, "default", "c1")
OF_VOLUME = VolumeId(VolumeKind.CUSTOM, "default", "v1")


class Disk:
    """What fails on it, by the names of the driver's methods; `create` and `snapshot` fail when they have made everything."""

    def __init__(self) -> None:
        self.failing: set[str] = set()

    def wrap(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """The method on this disk."""

        async def called(driver: SimStorage, *args: Any, **options: Any) -> Any:
            if name in self.failing and name not in ("create", "snapshot"):
                raise Conflict("no space left")
            result = await method(driver, *args, **options)
            if name in self.failing:
                raise Conflict("no space left")
            return result

        return called


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """That of all pools."""
    made = Disk()
    for name in ("create", "snapshot", "restore", "delete", "delete_pool", "open"):
        monkeypatch.setattr(SimStorage, name, made.wrap(name, getattr(SimStorage, name)))
    yield made
    made.failing.clear()


async def next_minute(app: Any) -> None:
    """What the scheduler does."""
    await upkeep.pool_watch(app.daemon).tick([datetime.datetime.now().astimezone()])


async def test_a_snapshot_that_cannot_be_undone_is_not_lost(app: Any, disk: Disk) -> None:
    await app.create("c1")
    await app.do("POST", VOLUMES, {"name": "v1"})
    volumes = app.daemon.storage.driver("pool").sizes
    for path, volume in ((C1, OF_INSTANCE), (V1, OF_VOLUME)):
        disk.failing |= {"snapshot", "delete"}
        assert (await app.refused("POST", f"{path}/snapshots", {"name": "s1"}))[0] in FAILED
        await next_minute(app)
        assert volume.at("s1") in volumes
        assert await app.get(f"{path}/snapshots") == []
        disk.failing.clear()
        await next_minute(app)
        assert volume.at("s1") not in volumes
        await app.do("POST", f"{path}/snapshots", {"name": "s1"})
        await app.do("PUT", path, {"restore": "s1"})


async def test_what_cannot_be_undone_is_undone_within_a_minute(app: Any, disk: Disk) -> None:
    disk.failing |= {"create", "delete"}
    assert (await app.refused("POST", INSTANCES, {"name": "c1", "source": {"type": "none"}}))[0] in FAILED
    assert (await app.refused("POST", VOLUMES, {"name": "v1"}))[0] in FAILED
    assert (await app.refused("DELETE", V1))[0] == 409
    await next_minute(app)
    assert (await app.get(INSTANCES), await app.get(VOLUMES)) == ([C1], [V1])
    disk.failing.clear()
    await next_minute(app)
    assert (await app.get(INSTANCES), await app.get(VOLUMES)) == ([], [])
    assert app.daemon.storage.driver("pool").sizes == {}
    await app.create("c1")
    await app.do("POST", VOLUMES, {"name": "v1"})


async def test_what_could_not_be_deleted_is_deleted_within_a_minute(app: Any, disk: Disk) -> None:
    await app.create("c1")
    await app.do("POST", VOLUMES, {"name": "v1"})
    await app.do("POST", f"{V1}/snapshots", {"name": "s1"})
    disk.failing.add("delete")
    for path in (C1, f"{V1}/snapshots/s1", V1):
        assert (await app.refused("DELETE", path))[0] in FAILED
    disk.failing.clear()
    await next_minute(app)
    assert (await app.get(INSTANCES), await app.get(VOLUMES)) == ([], [])


async def test_a_restore_that_cannot_be_taken_back_is_finished_and_what_ran_runs(
    app: Any, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await app.create("c1")
    await app.do("POST", f"{C1}/snapshots", {"name": "s1"})
    await app.set_state("c1", "start")

    async def refuse(*_: Any) -> None:
        raise Conflict("no space left")

    disk.failing.add("restore")
    with monkeypatch.context() as patch:
        patch.setattr(SnapshotRestore, "_resume", refuse)
        assert (await app.refused("PUT", C1, {"restore": "s1"}))[0] in FAILED
    disk.failing.clear()
    assert (await app.refused("PUT", f"{C1}/state", {"action": "start"}))[0] == 409
    await next_minute(app)
    assert (await app.get(C1))["status"] == "Running"


async def test_what_cannot_be_settled_keeps_the_daemon_from_nothing(app: Any, disk: Disk) -> None:
    await app.create("c0")
    disk.failing |= {"create", "delete"}
    for name in ("c1", "c2"):
        assert (await app.refused("POST", INSTANCES, {"name": name, "source": {"type": "none"}}))[0] in FAILED
    disk.failing.discard("create")
    await app.restart()
    assert (await app.get(f"{INSTANCES}/c0"))["status"] == "Stopped"
    disk.failing.clear()
    await next_minute(app)
    assert await app.get(INSTANCES) == [f"{INSTANCES}/c0"]


async def test_a_pool_that_cannot_be_undone_can_be_made_again(app: Any, disk: Disk) -> None:
    disk.failing |= {"open", "delete_pool"}
    assert (await app.refused("POST", POOLS, {"name": "p", "driver": "dir"}))[0] in FAILED
    disk.failing.clear()
    await app.do("POST", POOLS, {"name": "p", "driver": "dir"})
    await app.do("DELETE", f"{POOLS}/p")


async def test_a_new_name_that_cannot_be_noted_is_taken_back(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, commit, full = SimStorage.rename, Transaction.commit, asyncio.Event()

    async def renamed(driver: SimStorage, *args: Any) -> None:
        await rename(driver, *args)
        full.set()

    def committed(tx: Transaction) -> None:
        if full.is_set():
            tx.rollback()
            full.clear()
            raise Conflict("no space left")
        commit(tx)

    await app.create("c1")
    await app.do("POST", VOLUMES, {"name": "v1"})
    for path in (C1, V1):
        await app.do("POST", f"{path}/snapshots", {"name": "s1"})
    before = dict(app.daemon.storage.driver("pool").sizes)
    monkeypatch.setattr(SimStorage, "rename", renamed)
    monkeypatch.setattr(Transaction, "commit", committed)
    for path in (f"{C1}/snapshots/s1", f"{V1}/snapshots/s1", V1):
        assert (await app.refused("POST", path, {"name": "other"}))[0] in FAILED
        full.clear()
        assert app.daemon.storage.driver("pool").sizes == before


async def test_who_is_at_work_is_left_alone(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    go, create = asyncio.Event(), SimStorage.create

    async def slow(driver: SimStorage, *args: Any, **options: Any) -> None:
        await go.wait()
        await create(driver, *args, **options)

    await app.create("c0")
    monkeypatch.setattr(SimStorage, "create", slow)
    async with app.daemon.instances.core.hold(MachineId("default", "c0")):
        wishes = [
            app.do("POST", INSTANCES, {"name": "c1", "source": {"type": "none"}}),
            app.do("POST", INSTANCES, {"name": "c2", "source": {"type": "copy", "source": "c0"}}),
            app.do("POST", VOLUMES, {"name": "v1"}),
        ]
        tasks = [asyncio.ensure_future(each) for each in wishes]
        while len(await app.get(INSTANCES)) < 3 or not await app.get(VOLUMES):  # noqa: ASYNC110 - nothing tells it
            await asyncio.sleep(0.01)
        await next_minute(app)
    go.set()
    await asyncio.gather(*tasks)
    assert await app.get(INSTANCES) == [f"{INSTANCES}/c{number}" for number in range(3)]
    assert await app.get(VOLUMES) == [V1]


async def test_a_pool_that_came_into_use_after_its_deletion_failed_stays(app: Any, disk: Disk) -> None:
    await app.do("POST", POOLS, {"name": "p", "driver": "dir"})
    async with app.daemon.global_db.write() as tx:
        await rows.set_pool_phase(tx, (await rows.pool(tx, "p")).id, "deleting")  # as if that could not be taken back
    await app.do("POST", f"{POOLS}/p/volumes/custom", {"name": "v1"})
    await next_minute(app)
    assert await app.get(f"{POOLS}/p/volumes/custom") == [f"{POOLS}/p/volumes/custom/v1"]
    await app.do("DELETE", f"{POOLS}/p/volumes/custom/v1")
    await app.do("DELETE", f"{POOLS}/p")


async def test_backups_that_are_half_done_are_settled_within_a_minute(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await app.create("c1")
    await app.do("POST", VOLUMES, {"name": "v1"})

    async def refuse(*_: Any) -> None:
        raise Conflict("no space left")

    for path, service in ((C1, app.daemon.instances.backups), (V1, app.daemon.custom_volumes.backups)):
        for name in ("b", "c"):
            await app.do("POST", f"{path}/backups", {"name": name})
        with monkeypatch.context() as patch:
            patch.setattr(BackupFiles, "remove", refuse)
            patch.setattr(BackupFiles, "rename", refuse)
            assert (await app.refused("DELETE", f"{path}/backups/b"))[0] in FAILED
            assert (await app.refused("POST", f"{path}/backups/c", {"name": "d"}))[0] in FAILED
            await service.expire([])
        assert await app.get(f"{path}/backups") == [f"{path}/backups/b", f"{path}/backups/d"]
        await service.expire([])
        assert await app.get(f"{path}/backups") == [f"{path}/backups/d"]
        await app.do("DELETE", f"{path}/backups/d")


async def test_a_backup_that_fails_after_it_was_stored_is_removed(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await app.create("c1")

    async def refuse(*_: Any) -> None:
        raise Conflict("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(Table, "set_phase", refuse)
        assert (await app.refused("POST", f"{C1}/backups", {"name": "b"}))[0] in FAILED
    assert await app.get(f"{C1}/backups") == []
    assert not (app.paths.backups / "instances/c1/b").exists()


async def test_a_backup_that_was_finished_since_it_was_looked_at_stays(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await app.create("c1")
    looked_at, go, find = asyncio.Event(), asyncio.Event(), backup_rows.unfinished

    async def slow(tx: Transaction) -> Any:
        found = await find(tx)
        if found:
            looked_at.set()
            await go.wait()
        return found

    monkeypatch.setattr(backup_rows, "unfinished", slow)
    publish = BackupFiles.publish

    async def published(*args: Any) -> None:
        await looked_at.wait()
        await publish(*args)

    monkeypatch.setattr(BackupFiles, "publish", published)
    made = asyncio.ensure_future(app.do("POST", f"{C1}/backups", {"name": "b"}))
    while not await app.get(f"{C1}/backups"):  # noqa: ASYNC110 - nothing tells it
        await asyncio.sleep(0.01)
    settling = asyncio.ensure_future(app.daemon.instances.backups.expire([]))
    await made
    go.set()
    await settling
    assert await app.get(f"{C1}/backups") == [f"{C1}/backups/b"]


async def test_what_is_done_to_a_backup_at_once_is_done_in_turn_or_refused(app: Any) -> None:
    await app.create("c1")
    await app.do("POST", VOLUMES, {"name": "v1"})
    for path, kind in ((C1, "instances/c1"), (V1, "custom/pool/default_v1")):
        await app.do("POST", f"{path}/backups", {"name": "b"})
        rename = app.call("POST", f"{path}/backups/b", {"name": "c"})
        for _, content in await asyncio.gather(rename, app.call("DELETE", f"{path}/backups/b")):
            await app.ended(content)
        rows_there = {each.rpartition("/")[2] for each in await app.get(f"{path}/backups")}
        assert rows_there == {each.name for each in (app.paths.backups / kind).glob("*")}


async def test_a_pool_that_is_removed_is_not_used_meanwhile(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await app.do("POST", POOLS, {"name": "p", "driver": "dir"})
    async with app.daemon.global_db.write() as tx:
        await rows.set_pool_phase(tx, (await rows.pool(tx, "p")).id, "deleting")  # as if that could not be taken back
    remove, answers = SimStorage.delete_pool, []

    async def removed(driver: SimStorage) -> None:
        answers.append((await app.call("POST", f"{POOLS}/p/volumes/custom", {"name": "v1"}))[0])
        await remove(driver)

    monkeypatch.setattr(SimStorage, "delete_pool", removed)
    await next_minute(app)
    assert (answers, await app.get(POOLS)) == ([503], [f"{POOLS}/pool"])


async def test_one_that_is_going_to_be_made_is_neither_deleted_nor_renamed(app: Any) -> None:
    """Its row is there; its lock nobody holds yet, if it sorts behind that of what it is made of."""
    await app.create("c0")
    async with app.daemon.instances.core.hold(MachineId("default", "c0")):
        source = {"type": "copy", "source": "c0"}
        made = [asyncio.ensure_future(app.do("POST", INSTANCES, {"name": name, "source": source})) for name in ("c1", "c2")]
        while len(await app.get(INSTANCES)) < 3:  # noqa: ASYNC110 - nothing tells it
            await asyncio.sleep(0.01)
        assert (await app.refused("DELETE", C1))[1] == "Instance is busy: creating"
        assert (await app.refused("POST", f"{INSTANCES}/c2", {"name": "c3"}))[1] == "Instance is busy: creating"
    await asyncio.gather(*made)
    assert {volume.name for volume in app.daemon.storage.driver("pool").sizes} == {"c0", "c1", "c2"}
