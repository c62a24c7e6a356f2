"""Backups of instances beside what else happens to these."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from atoll.host import archive_pack

C1 = "/1.0/instances/c1"


class Packing:
    """Archives are packed when the test says so."""

    def __init__(self, real: Callable[..., Awaitable[None]]) -> None:
        self._real = real
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()

    async def __call__(self, *args: Any, **options: Any) -> None:
        self.begun.set()
        await self.go_on.wait()
        await self._real(*args, **options)


@pytest.fixture
def packing(monkeypatch: pytest.MonkeyPatch) -> Packing:
    found = Packing(archive_pack.pack_tar)
    monkeypatch.setattr(archive_pack, "pack_tar", found)
    return found


@pytest.mark.parametrize("runs", [True, False])
async def test_a_deletion_waits_for_the_backup(app: Any, packing: Packing, *, runs: bool) -> None:
    await app.create("c1")
    await app.do("POST", f"{C1}/snapshots", {"name": "s1"})
    if runs:
        await app.set_state("c1", "start")
    _, backup = await app.call("POST", f"{C1}/backups", {"name": "b1"})
    await asyncio.wait_for(packing.begun.wait(), 30)
    if runs:  # what is packed is of another moment: the instance is free
        await app.set_state("c1", "stop", force=True)
        assert "being copied or backed up" in (await app.refused("POST", C1, {"name": "c2"}))[1]
    _, deletion = await app.call("DELETE", C1)
    assert (await app.get(f"{deletion['operation']}/wait?timeout=0"))["status"] == "Running"
    packing.go_on.set()
    assert [(await app.ended(each))["err"] for each in (backup, deletion)] == ["", ""]
    assert app.daemon.storage.driver("pool").sizes == {}
    assert list((app.paths.backups / "instances").iterdir()) == []


async def test_what_was_there_for_a_backup_alone_goes_with_it(app: Any, packing: Packing) -> None:
    await app.create("c1")
    await app.set_state("c1", "start")
    packing.go_on.set()
    await app.do("POST", f"{C1}/backups", {"name": "b1"})
    assert [each.snapshot for each in await app.daemon.storage.driver("pool").inventory()] == [""]
    assert (await app.get(f"{C1}/snapshots"), await app.get(f"{C1}/backups")) == ([], [f"{C1}/backups/b1"])


async def test_how_a_backup_is_shown(app: Any) -> None:
    await app.do("POST", "/1.0/projects", {"name": "p1", "config": {"features.profiles": "false"}})
    await app.create("c2", query="?project=p1")
    url, date = "/1.0/instances/c2/backups", "2100-01-02T03:04:05Z"
    hub = await app.events("?type=lifecycle&project=p1")
    await app.do("POST", f"{url}?project=p1", {"name": "b1", "expires_at": date})
    assert await app.get(f"{url}?project=p1") == [f"{url}/b1"], "as in LXD without the project"
    assert (await app.get(f"{url}/b1?project=p1"))["expires_at"] == date
    assert await app.refused("POST", f"{url}?project=p1", {"name": "b1"}) == (409, "Backup 'b1' already exists")
    await app.do("POST", f"{url}/b1?project=p1", {"name": "b2"})
    told = [await hub.receive_json(timeout=30) for _ in range(2)]
    assert told[1]["metadata"]["context"] == {"old_name": "c2/b1"}
    await hub.close()
