"""Backups of custom volumes: made, fetched, renamed, expired; and taken in, also from strangers."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

import archives
import pytest
from archives import SHIFT, info

from atoll.domain import clock
from atoll.domain.caller import Caller, Protocol
from atoll.drivers.storage.contract import VolumeId, VolumeKind

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="packing and unpacking keep owners, which takes root")

POOLS = "/1.0/storage-pools"
CUSTOM = f"{POOLS}/pool/volumes/custom"
BACKUPS = f"{CUSTOM}/v1/backups"
INDEX: dict[str, Any] = {
    "name": "v1",
    "backend": "dir",
    "pool": "elsewhere",
    "snapshots": ["s0"],
    "optimized": False,
    "type": "custom",
    "config": {
        "volume": {
            "name": "v1",
            "description": "told",
            "content_type": "filesystem",
            "config": {"user.a": "now", "volatile.idmap.last": SHIFT, "volatile.idmap.next": SHIFT},
        },
        "volume_snapshots": [
            {
                "name": "v1/s0",
                "config": {"user.a": "then"},
                "created_at": "2020-01-02T03:04:05Z",
                "expires_at": "2100-01-01T00:00:00Z",
            }
        ],
    },
}


def archive(index: Any = INDEX, *, without: Sequence[str] = (), more: Sequence[tarfile.TarInfo] = ()) -> bytes:
    """A backup as LXD makes it: files that an instance last used have shifted ids."""
    entries: list[archives.Entry] = []
    for folder, ids in (("backup/volume-snapshots/s0", 0), ("backup/volume", 100_000)):
        if folder not in without:
            entries.append((info(folder, kind=tarfile.DIRTYPE, ids=ids, mode=0o1777), b""))
            entries.append((info(f"{folder}/dev/x", 4, ids=ids), folder.encode()[7:11]))
    return archives.backup(None if "index" in without else index, [*entries, *((each, b"") for each in more)])


def changed(path: str, value: Any) -> dict[str, Any]:
    """The index with another value at a path."""
    return archives.with_value(INDEX, path, value)


async def send(app: Any, data: bytes, *, query: str = "", headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
    """(status, operation as it ended or error's text) of an import."""
    return await archives.send(app, f"{CUSTOM}{query}", data, headers, kind="Restoring custom volume backup")


async def fetch(app: Any, name: str) -> bytes:
    """A backup's file."""
    async with app.session.get(f"{BACKUPS}/{name}/export") as answer:
        assert answer.status == 200
        return bytes(await answer.read())


async def assert_nothing_left(app: Any, *volumes: str) -> None:
    """No rows but of these volumes and their snapshots, no folders, no volumes in the pool."""
    found = await app.get(f"{CUSTOM}?recursion=1&all-projects=true")
    assert {each["name"].partition("/")[0] for each in found} == set(volumes)
    assert sorted(path.name for path in app.paths.backups.iterdir()) == ["custom", "instances"]
    sizes = app.daemon.storage.driver("pool").sizes
    assert {volume.name for volume in sizes if volume.kind is VolumeKind.CUSTOM} == set(volumes)


def data_of(app: Any, name: str) -> Any:
    return app.daemon.storage.driver("pool").data(VolumeId(VolumeKind.CUSTOM, "default", name))


# Made here


async def test_from_a_volume_to_a_file_and_back(app: Any) -> None:
    await app.do("POST", CUSTOM, {"name": "v1", "description": "d", "config": {"user.a": "0"}})
    await app.do("POST", f"{CUSTOM}/v1/snapshots", {"name": "s0", "expires_at": "2100-01-01T00:00:00Z"})
    await app.do("PATCH", f"{CUSTOM}/v1", {"config": {"user.a": "1"}})
    ended = await app.do("POST", BACKUPS, {"compression_algorithm": "none", "optimized_storage": True, "expires_at": None})
    assert ended["description"] == "Creating custom volume backup"
    assert ended["resources"]["backups"] == ["/1.0/backups/backup0"]
    assert await app.get(BACKUPS) == [f"{BACKUPS}/backup0"]
    found = await app.get(f"{BACKUPS}/backup0")
    assert (found["volume_only"], found["optimized_storage"], found["expires_at"]) == (False, False, clock.NEVER)
    data = await fetch(app, "backup0")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == ["backup/index.yaml", "backup/volume-snapshots/s0", "backup/volume"]
    assert (await send(app, data, headers={"X-LXD-name": "v2"}))[0] == 200
    for path in ("", "/snapshots/s0"):
        old, new = await app.get(f"{CUSTOM}/v1{path}"), await app.get(f"{CUSTOM}/v2{path}")
        assert new == old | {"name": new["name"]}
    await app.do("POST", BACKUPS, {"name": "alone", "volume_only": True, "compression_algorithm": "zstd"})
    await app.do("DELETE", f"{CUSTOM}/v2")
    await assert_nothing_left(app, "v1")


async def test_verbs_and_what_is_refused(app: Any) -> None:
    await app.do("POST", CUSTOM, {"name": "v1"})
    await app.do("POST", BACKUPS, {"name": "b"})
    folder = app.paths.backups / "custom/pool/default_v1"
    assert [path.stat().st_mode & 0o777 for path in (folder.parent, folder, folder / "b")] == [0o700, 0o700, 0o600]
    await app.do("POST", f"{BACKUPS}/b", {"name": "c"})
    assert [path.name for path in folder.iterdir()] == ["c"]
    assert await app.refused("POST", BACKUPS, {"name": "c"}) == (409, "Backup 'c' already exists")
    assert (await app.refused("POST", BACKUPS, {"name": "d", "compression_algorithm": "gzip; id"}))[0] == 400
    for name in ("..", "../x", "a/b", "/abs", ".hidden", "a b", "-rf", "a\nb", "x" * 300):
        assert (await app.refused("POST", BACKUPS, {"name": name}))[0] == 400
        assert (await app.refused("POST", f"{BACKUPS}/c", {"name": name}))[0] == 400
    for method, path in (("GET", "/b"), ("POST", "/b"), ("DELETE", "/b"), ("GET", "/b/export")):
        assert await app.refused(method, BACKUPS + path, {"name": "x"}) == (404, "Storage volume backup not found")
    await app.create("c1")
    assert (await app.refused("GET", f"{POOLS}/pool/volumes/container/c1/backups"))[0] == 400
    assert (await app.refused("GET", f"{CUSTOM}/absent/backups"))[0] == 404
    await app.do("DELETE", f"{BACKUPS}/c")
    assert not folder.exists() and await app.get(BACKUPS) == []
    await app.do("POST", BACKUPS, {"name": "b"})
    await app.do("DELETE", f"{CUSTOM}/v1")
    assert not folder.exists()


async def test_what_expires_and_what_a_kill_leaves(app: Any) -> None:
    await app.do("POST", CUSTOM, {"name": "v1"})
    for name, expiry in (("old", "2020-01-01T00:00:00Z"), ("new", "2100-01-01T00:00:00Z"), ("half", None), ("moved", None)):
        await app.do("POST", BACKUPS, {"name": name, "expires_at": expiry})
    await app.daemon.custom_volumes.backups.expire([])
    assert await app.get(BACKUPS) == [f"{BACKUPS}/{name}" for name in ("new", "half", "moved")]
    folder = app.paths.backups / "custom/pool/default_v1"
    (folder / ".making-x").mkdir()
    await app.do("POST", CUSTOM, {"name": "v2"})
    without = folder.with_name("default_v2")
    (without / ".making-y").mkdir(parents=True)
    for name, phase in (("half", "creating"), ("moved", "renaming from moved")):
        query = f"UPDATE storage_volumes_backups SET phase = '{phase}', name = '{name}2' WHERE name = '{name}'"
        await app.do("POST", "/internal/sql", {"database": "global", "query": query})
    await app.restart()
    assert await app.get(BACKUPS) == [f"{BACKUPS}/{name}" for name in ("new", "moved2")]
    assert {path.name for path in folder.iterdir()} >= {"new", "moved2"} and not (folder / ".making-x").exists()
    assert not without.exists()
    without.mkdir()  # a kill may come so early
    await app.do("DELETE", f"{CUSTOM}/v2")
    assert not without.exists()


async def test_a_backup_that_fails_leaves_nothing(app: Any) -> None:
    await app.do("POST", CUSTOM, {"name": "v1"})
    query = "UPDATE storage_volumes SET phase = 'refreshing' WHERE name = 'v1'"
    await app.do("POST", "/internal/sql", {"database": "global", "query": query})
    assert await app.refused("POST", BACKUPS, {"name": "b"}) == (400, "Storage volume is busy: refreshing")
    assert await app.get(BACKUPS) == [] and not (app.paths.backups / "custom/pool").exists()


# What comes in


async def test_a_volume_is_what_it_was(app: Any) -> None:
    status, ended = await send(app, archive())
    assert status == 200 and ended["resources"]["storage_volumes"] == [f"{CUSTOM}/v1"]
    found, snapshot = await app.get(f"{CUSTOM}/v1"), await app.get(f"{CUSTOM}/v1/snapshots/s0")
    assert (found["description"], found["config"]) == ("told", {"user.a": "now"})
    assert (snapshot["config"], snapshot["created_at"][:4], snapshot["expires_at"][:4]) == ({"user.a": "then"}, "2020", "2100")
    data = data_of(app, "v1")
    assert ((data / "dev/x").read_bytes(), (data / "dev/x").stat().st_uid, data.stat().st_uid) == (b"volu", 0, 0)
    assert data.stat().st_mode & 0o7777 == 0o1777
    assert await send(app, archive()) == (409, "Volume by that name already exists")
    assert (await send(app, archive(without=["backup/volume-snapshots/s0"]), headers={"X-LXD-name": "v2"}))[0] == 400
    assert (await send(app, archive(changed("snapshots", [])), headers={"X-LXD-name": "v3"}))[0] == 200
    assert await app.get(f"{CUSTOM}/v3/snapshots") == []
    await assert_nothing_left(app, "v1", "v3")


async def test_projects_and_strangers(app: Any) -> None:
    await app.do("POST", "/1.0/projects", {"name": "p1"})
    assert (await send(app, archive(), query="?project=p1"))[0] == 200
    assert (await app.get(f"{CUSTOM}/v1?project=p1"))["project"] == "p1"
    app.caller = Caller(Protocol.TLS, "somebody", trusted=True, restricted=True, projects=frozenset({"p1"}))
    status, _ = await send(app, archive())
    app.caller = None
    assert status == 403 and await app.get(CUSTOM) == []


NAMES = ("..", "../x", "a/b", "/abs", "a b", "-rf", "x" * 200)
DESCRIPTIONS: list[tuple[str, Any, str]] = [
    ("type", "container", "no backup of a custom volume"),
    ("type", None, "no backup of a custom volume"),
    ("config|volume", None, "Valid volume config not found"),
    ("config", None, "Valid volume config not found"),
    ("config", [], ""),
    ("config|volume", "x", ""),
    ("config|volume|content_type", "block", "volume-snapshots/s0.img"),
    ("config|volume|content_type", "nonsense", "content type"),
    ("config|volume_snapshots|0|content_type", "block", "different content types"),
    ("config|volume_snapshots", [], "is not described"),
    ("config|volume_snapshots", None, "is not described"),
    ("config|volume_snapshots|0", None, ""),
    ("config|volume_snapshots|0|name", None, ""),
    ("config|volume|config", "x", ""),
    ("config|volume|config|size", "much", "size"),
    ("config|volume_snapshots|0|config|size", "much", "size"),
    ("config|volume|config|volatile.idmap.last", "[{", "no map"),
    ("config|volume|config|volatile.idmap.last", SHIFT.replace("100000", '"x"'), ""),
    ("config|volume|created_at", "yesterday", "no time"),
    ("config|volume_snapshots|0|expires_at", "tomorrow", "no time"),
    ("snapshots", ["s0", "s0"], "same name"),
    ("snapshots", "s0", ""),
    ("name", None, ""),
    ("optimized", True, ""),
    ("description", "x" * (1 << 20), "larger than"),
]


async def test_descriptions_that_cannot_be(app: Any) -> None:
    for path, value, says in DESCRIPTIONS:
        status, error = await send(app, archive(changed(path, value)))
        assert status in (400, 413, 501) and says in error, (path, value, status, error)
    for name in NAMES:
        assert (await send(app, archive(), headers={"X-LXD-name": name}))[0] == 400
        assert (await send(app, archive(changed("name", name))))[0] == 400
    for name in (*NAMES[:6], "", "a\nb"):
        assert (await send(app, archive(changed("snapshots|0", name))))[0] == 400
    assert await send(app, archive(), headers={"X-LXD-type": "iso"}) == (400, "Missing volume name")
    await assert_nothing_left(app)


ARCHIVES = [
    b"",
    b"garbage",
    archive(b"name: ["),
    archive(without=["index"]),
    archive(without=["backup/volume"]),
    archive(without=["backup/volume-snapshots/s0"]),
    archive()[:2000],
    archive()[:4500],
    archive(more=[info("backup/volume/../../x")]),
    archive(more=[info("backup/volume", kind=tarfile.SYMTYPE, link="/")]),
    archive(more=[info("backup/volume/x", kind=tarfile.LNKTYPE, link="/etc/passwd")]),
    archive(more=[info("backup/volume/x", kind=tarfile.LNKTYPE, link="backup/index.yaml")]),
    archive(more=[info("backup//volume/y")]),
    archive(more=[info("backup/volume/l", kind=tarfile.SYMTYPE, link="/etc"), info("backup/volume/l/passwd")]),
]


async def test_archives_that_cannot_be(app: Any) -> None:
    for number, data in enumerate(ARCHIVES):
        status, error = await send(app, data)
        assert status == 400, (number, status, error)
    await assert_nothing_left(app)


async def test_devices_are_left_out_and_links_stay_links(app: Any) -> None:
    more = [info("backup/volume/null", kind=tarfile.CHRTYPE), info("backup/volume/l", kind=tarfile.SYMTYPE, link="/etc/shadow")]
    assert (await send(app, archive(more=more)))[0] == 200
    assert sorted(path.name for path in data_of(app, "v1").iterdir()) == ["dev", "l"]
    assert os.readlink(data_of(app, "v1") / "l") == "/etc/shadow"
