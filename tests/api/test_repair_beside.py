"""The minute's repair beside whatever is done: it comes at each moment at which another task of the daemon may run, and leaves
alone what somebody is at work on."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from archives import OCTETS
from links import linked, told

from atoll.db.engine import Database, Transaction
from atoll.domain import protobuf
from atoll.domain.migration_header import Header
from atoll.drivers.storage.contract import VolumeId
from atoll.drivers.storage.sim import SimStorage
from atoll.runtime import upkeep

from .conftest import tiny_image
from .test_volume_backups import archive

INSTANCES, POOLS = "/1.0/instances", "/1.0/storage-pools"
VOLUMES, ELSEWHERE = f"{POOLS}/pool/volumes/custom", f"{POOLS}/other/volumes/custom"
C1, V1 = f"{INSTANCES}/c1", f"{VOLUMES}/v1"
LONGEST = 20
"""Seconds that a repair may take: one that waits for whoever waits for it ends the test."""

_repairing: ContextVar[bool] = ContextVar("_repairing", default=False)


class Minute:
    """The repair, which `comes` before and after what tasks wait for: database, pools. Not within a transaction that writes, for
    it waits for that."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._turn = asyncio.Lock()
        self.is_on = False
        self.times = 0

    async def comes(self) -> None:
        """If it is its time; once more for each task."""
        if not self.is_on or _repairing.get() or self._app.daemon.global_db._write_turn.locked():
            return
        async with self._turn, asyncio.timeout(LONGEST):
            if not self._app.daemon.global_db._write_turn.locked():
                await asyncio.create_task(self._repair())

    async def _repair(self) -> None:
        _repairing.set(True)
        self.times += 1
        now = [datetime.datetime.now().astimezone()]
        await upkeep.pool_watch(self._app.daemon).tick(now)
        await self._app.daemon.instances.backups.expire(now)
        await self._app.daemon.custom_volumes.backups.expire(now)

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """While the block runs."""
        self.is_on = True
        try:
            yield
        finally:
            self.is_on = False


@pytest.fixture
def minute(app: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Minute]:
    """Finds nothing to repair, or the test fails."""
    caplog.set_level(logging.WARNING)
    made = Minute(app)
    for name in ("create", "clone", "delete", "rename", "snapshot", "snapshot_paused", "restore", "set_size", "unmount"):
        monkeypatch.setattr(SimStorage, name, _beside(made, getattr(SimStorage, name)))
    for name in ("read", "write"):
        monkeypatch.setattr(Database, name, _around(made, getattr(Database, name)))
    yield made
    made.is_on = False
    said = [record.message for record in caplog.records if "Repair" in record.message or "settled" in record.message]
    assert said == []


def _beside(minute: Minute, method: Callable[..., Any]) -> Callable[..., Any]:
    async def called(*args: Any, **options: Any) -> Any:
        await minute.comes()
        try:
            return await method(*args, **options)
        finally:
            await minute.comes()

    return called


def _around(minute: Minute, method: Callable[..., Any]) -> Callable[..., Any]:
    @contextlib.asynccontextmanager
    async def opened(database: Database) -> AsyncIterator[Transaction]:
        await minute.comes()
        async with method(database) as tx:
            yield tx
        await minute.comes()

    return opened


def of_pool(app: Any, pool: str) -> set[VolumeId]:
    """What is in it."""
    return set(app.daemon.storage.driver(pool).sizes)


async def test_beside_what_is_done_to_instances(app: Any, minute: Minute) -> None:
    await app.do("POST", POOLS, {"name": "other", "driver": "dir"})
    await app.do("POST", "/1.0/projects", {"name": "p", "config": {"features.profiles": "false", "features.images": "false"}})
    root = {"root": {"type": "disk", "pool": "other", "path": "/"}}
    copy = {"type": "copy", "source": "c1"}
    with minute.on():
        async with app.session.post("/1.0/images", data=tiny_image(), headers=OCTETS) as answer:
            image = (await app.ended(await answer.json()))["metadata"]["fingerprint"]
        await app.do("POST", INSTANCES, {"name": "c1", "source": {"type": "image", "fingerprint": image}})
        await app.do("POST", f"{C1}/snapshots", {"name": "s1"})
        await app.do("POST", f"{C1}/snapshots", {"name": "s2"})
        await app.do("POST", INSTANCES, {"name": "c2", "source": copy})
        await app.do("POST", INSTANCES, {"name": "c3", "source": {**copy, "source": "c1/s1"}})
        await app.do("POST", f"{C1}/snapshots/s2", {"name": "s3"})
        await app.do("DELETE", f"{C1}/snapshots/s1")
        await app.do("POST", INSTANCES, {"name": "c2", "source": {**copy, "refresh": True}})
        assert await app.get(f"{INSTANCES}/c2/snapshots") == [f"{INSTANCES}/c2/snapshots/s3"]
        await app.do("PUT", C1, {"restore": "s3"})
        await app.set_state("c1", "start")
        await app.do("POST", f"{C1}/snapshots", {"name": "running"})
        await app.do("PUT", C1, {"restore": "s3"})
        await app.do("POST", f"{C1}/backups", {"name": "b1", "compression_algorithm": "none"})
        await app.do("POST", INSTANCES, {"name": "c4", "devices": root, "source": copy})
        await app.set_state("c1", "stop", force=True)
        await app.do("POST", f"{C1}/backups", {"name": "b2", "compression_algorithm": "none"})
        await app.do("POST", f"{C1}/backups/b2", {"name": "b3"})
        await app.do("DELETE", f"{C1}/backups/b1")
        await app.do("POST", C1, {"name": "c5"})
        await app.do("POST", f"{INSTANCES}/c5", {"migration": True, "pool": "other", "name": "c5"})
        await app.do("POST", f"{INSTANCES}/c5", {"migration": True, "project": "p", "name": "c5"})
        for name in ("c2", "c3", "c4"):
            await app.do("DELETE", f"{INSTANCES}/{name}")
        moved = f"{INSTANCES}/c5"
        found = await app.get(f"{moved}/snapshots?project=p")
        assert sorted(found) == [f"{moved}/snapshots/running?project=p", f"{moved}/snapshots/s3?project=p"]
        await app.do("DELETE", f"{moved}?project=p")
        await app.do("DELETE", f"/1.0/images/{image}")
    assert minute.times > 100
    assert (of_pool(app, "pool"), of_pool(app, "other")) == (set(), set())


async def test_beside_what_is_done_to_volumes(app: Any, minute: Minute) -> None:
    await app.do("POST", POOLS, {"name": "other", "driver": "dir"})
    source = {"name": "v1", "pool": "pool", "type": "copy"}
    with minute.on():
        await app.do("POST", VOLUMES, {"name": "v1"})
        await app.do("POST", f"{V1}/snapshots", {"name": "s1"})
        await app.do("POST", VOLUMES, {"name": "v2", "source": source})
        await app.do("POST", ELSEWHERE, {"name": "v3", "source": source})
        await app.do("POST", f"{V1}/snapshots/s1", {"name": "s2"})
        await app.do("POST", f"{V1}/snapshots", {"name": "s3"})
        await app.do("POST", ELSEWHERE, {"name": "v3", "source": {**source, "refresh": True}})
        await app.do("PUT", V1, {"restore": "s2"})
        await app.do("DELETE", f"{V1}/snapshots/s3")
        await app.do("POST", f"{V1}/backups", {"name": "b1", "compression_algorithm": "none"})
        await app.do("POST", f"{V1}/backups/b1", {"name": "b2"})
        await app.do("POST", V1, {"name": "v4"})
        await app.do("POST", f"{VOLUMES}/v4", {"name": "v4", "pool": "other"})
        for kind, name in (("iso", "i1"), ("backup", "v5")):
            headers = {**OCTETS, "X-LXD-name": name, "X-LXD-type": kind}
            async with app.session.post(VOLUMES, data=archive() if kind == "backup" else b"x" * 512, headers=headers) as answer:
                assert (await app.ended(await answer.json()))["err"] == ""
        for path in (f"{VOLUMES}/v2", f"{ELSEWHERE}/v3", f"{ELSEWHERE}/v4", f"{VOLUMES}/i1", f"{VOLUMES}/v5"):
            await app.do("DELETE", path)
        await app.do("POST", POOLS, {"name": "third", "driver": "dir"})
        await app.do("DELETE", f"{POOLS}/third")
    assert minute.times > 100
    assert (of_pool(app, "pool"), of_pool(app, "other")) == (set(), set())


async def test_beside_one_that_comes_from_another_server(app: Any, minute: Minute) -> None:
    for path in (INSTANCES, VOLUMES):
        source = {"type": "migration", "mode": "push"}
        _, content = await app.call("POST", path, {"name": "new", "source": source})
        with minute.on():
            for _ in range(5):
                await minute.comes()
            links = await linked(app, content)
            await links["control"].send_bytes(protobuf.encode(Header()))
            await told(links["control"], Header)
            for link in links.values():
                await link.close()
            assert (await app.ended(content))["status"] == "Failure"
        assert await app.get(path) == []
