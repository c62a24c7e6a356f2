"""Backups that come in, and descriptions of instances that outlive the database."""

from __future__ import annotations

import asyncio
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import archives
import pytest
from archives import SHIFT, info

from atoll.domain.caller import Caller, Protocol
from atoll.drivers.storage.contract import VolumeId, VolumeKind

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="unpacking keeps owners, which takes root")

UUID = "4ead3a8f-727b-4966-9b37-06ac84f76cbe"
ENTRY: dict[str, Any] = {
    "architecture": "x86_64",
    "config": {"user.a": "new", "volatile.uuid": UUID, "volatile.last_state.idmap": SHIFT, "volatile.eth0.host_name": "lo"},
    "devices": {},
    "profiles": ["default"],
    "description": "told",
    "created_at": "2020-01-02T03:04:05Z",
    "name": "c1",
    "type": "container",
}
CONFIG: dict[str, Any] = {
    "container": ENTRY,
    "snapshots": [{**ENTRY, "name": "s0", "config": {"user.a": "old"}, "created_at": "2019-01-01T00:00:00Z"}],
    "pool": {"name": "pool", "driver": "dir", "config": {}},
    "volume": {"name": "c1", "config": {"user.v": "now"}},
    "volume_snapshots": [{"name": "s0", "config": {"user.v": "then"}}],
}
INDEX: dict[str, Any] = {
    "name": "c1",
    "backend": "dir",
    "pool": "pool",
    "snapshots": ["s0"],
    "type": "container",
    "config": CONFIG,
}


def archive(index: Any = INDEX, *, without: Sequence[str] = (), more: Sequence[tarfile.TarInfo] = ()) -> bytes:
    """A backup as LXD makes it: files of the instance have shifted ids."""
    entries: list[archives.Entry] = []
    for folder, ids in (("backup/snapshots/s0", 0), ("backup/container", 100_000)):
        if folder not in without:
            entries.append((info(f"{folder}/rootfs", kind=tarfile.DIRTYPE, ids=ids), b""))
            entries.append((info(f"{folder}/rootfs/of-{folder[7:16]}", 4, ids=ids), b"data"))
    return archives.backup(None if "index" in without else index, [*entries, *((each, b"") for each in more)])


def changed(path: str, value: Any) -> dict[str, Any]:
    """The index with another value at a path."""
    return archives.with_value(INDEX, path, value)


async def send(app: Any, data: bytes, *, query: str = "", headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
    """(status, operation as it ended or error's text) of an import."""
    return await archives.send(app, f"/1.0/instances{query}", data, headers, kind="Restoring backup")


async def assert_nothing_left(app: Any, *instances: str) -> None:
    """No rows but of these instances, no folders, no volumes."""
    assert await app.get("/1.0/instances") == [f"/1.0/instances/{name}" for name in instances]
    rows = await app.do("POST", "/internal/sql", {"database": "global", "query": "SELECT name FROM storage_volumes"})
    assert [row[0] for row in rows["metadata"]["results"][0]["rows"] or ()] == list(instances)
    assert sorted(path.name for path in app.paths.backups.iterdir()) == ["custom", "instances"]
    volumes = app.daemon.storage.driver("pool").sizes
    assert {volume.name for volume in volumes if volume.kind is VolumeKind.INSTANCE} == set(instances)


def volume(name: str, snapshot: str = "") -> VolumeId:
    return VolumeId(VolumeKind.INSTANCE, "default", name, snapshot)


# What comes in


async def test_an_instance_is_what_it_was(app: Any) -> None:
    status, ended = await send(app, archive())
    assert status == 200 and ended["resources"]["instances"] == ["/1.0/instances/c1"]
    found = await app.get("/1.0/instances/c1?recursion=1")
    assert (found["description"], found["profiles"], found["created_at"][:19]) == ("told", ["default"], "2020-01-02T03:04:05")
    assert found["config"]["user.a"] == "new" and found["config"]["volatile.uuid"] == UUID
    assert not {"volatile.eth0.host_name", "volatile.apply_template"} & set(found["config"])
    assert found["config"]["volatile.last_state.idmap"] == "[]"
    assert [(each["name"], each["config"]["user.a"], each["created_at"][:4]) for each in found["snapshots"]] == [
        ("s0", "old", "2019")
    ]
    base = "/1.0/storage-pools/pool/volumes/container/c1"
    assert (await app.get(base))["config"] == {"user.v": "now"}
    assert (await app.get(f"{base}/snapshots/s0"))["config"] == {"user.v": "then"}
    driver = app.daemon.storage.driver("pool")
    assert {volume("c1"), volume("c1", "s0")} <= set(driver.sizes)
    file = driver.data(volume("c1")) / "rootfs/of-container"
    assert (file.read_bytes(), file.stat().st_uid) == (b"data", 0)
    assert not (driver.data(volume("c1")) / "rootfs/of-snapshots").exists()
    await assert_nothing_left(app, "c1")


async def test_another_name_and_another_identity(app: Any) -> None:
    await send(app, archive())
    status, _ = await send(app, archive(), headers={"X-LXD-name": "c2"})
    assert status == 200 and (await app.get("/1.0/instances/c2"))["config"]["volatile.uuid"] != UUID
    assert await send(app, archive()) == (409, "Instance 'c1' already exists")
    await assert_nothing_left(app, "c1", "c2")


async def test_addresses_are_those_of_before_and_of_one_instance_alone(app: Any) -> None:
    """Its networks are told of them at once. Of another one made of the same backup, a restore brings none of the first one's."""
    await app.do("POST", "/1.0/networks", {"name": "atolltest0", "config": {"ipv4.address": "10.7.7.1/24"}})
    nic = {"type": "nic", "network": "atolltest0"}
    address = {"volatile.eth0.hwaddr": "00:16:3e:01:02:03", "volatile.uuid": UUID}
    now = {**ENTRY, "config": address, "devices": {"eth0": {**nic, "ipv4.address": "10.7.7.7"}}}
    then = {**now, "name": "s0", "config": {**address, "volatile.eth1.hwaddr": "00:16:3e:01:02:04"}}
    then["devices"] = {"eth0": nic, "eth1": {**nic, "vlan": "5"}}
    index = {**INDEX, "config": {**CONFIG, "container": now, "snapshots": [then]}}
    await send(app, archive(index))
    leases = {lease["address"]: lease["hwaddr"] for lease in await app.get("/1.0/networks/atolltest0/leases")}
    assert leases["10.7.7.7"] == "00:16:3e:01:02:03"
    await app.do("PUT", "/1.0/instances/c1", {"restore": "s0"})
    now["devices"] = {"eth0": nic}
    await send(app, archive(index), headers={"X-LXD-name": "c2"})
    own = (await app.get("/1.0/instances/c2"))["config"]["volatile.eth0.hwaddr"]
    await app.do("PUT", "/1.0/instances/c2", {"restore": "s0"})
    found = {name: (await app.get(f"/1.0/instances/{name}"))["config"] for name in ("c1", "c2")}
    addresses = [config[f"volatile.{nic}.hwaddr"] for config in found.values() for nic in ("eth0", "eth1")]
    assert addresses[:3] == ["00:16:3e:01:02:03", "00:16:3e:01:02:04", own]
    assert len(set(addresses)) == 4


async def test_pools(app: Any) -> None:
    """The archive's, else the default profile's, unless one is named; the root disk says so."""
    await app.do("POST", "/1.0/storage-pools", {"name": "other", "driver": "dir"})
    gone = changed("pool", "gone")
    assert (await send(app, archive(gone)))[0] == 200
    assert (await app.get("/1.0/instances/c1"))["devices"] == {}
    assert (await send(app, archive(gone), headers={"X-LXD-name": "c2", "X-LXD-pool": "other"}))[0] == 200
    assert (await app.get("/1.0/instances/c2"))["devices"] == {"root": {"type": "disk", "path": "/", "pool": "other"}}
    assert await send(app, archive(), headers={"X-LXD-name": "c3", "X-LXD-pool": "gone"}) == (404, "Storage pool not found")
    await app.do("POST", "/1.0/projects", {"name": "bare"})
    status, error = await send(app, archive(gone), query="?project=bare")
    assert status == 400 and "no root disk" in error


async def test_other_projects_and_strangers(app: Any) -> None:
    await app.do("POST", "/1.0/projects", {"name": "p1", "config": {"features.profiles": "false"}})
    assert (await send(app, archive(), query="?project=p1"))[0] == 200
    assert await app.get("/1.0/instances?project=p1") == ["/1.0/instances/c1?project=p1"]
    app.caller = Caller(Protocol.TLS, "somebody", trusted=True, restricted=True, projects=frozenset({"p1"}))
    status, _ = await send(app, archive())
    app.caller = None
    assert status == 403
    await assert_nothing_left_in_default(app)


async def assert_nothing_left_in_default(app: Any) -> None:
    assert await app.get("/1.0/instances") == []
    assert sorted(path.name for path in app.paths.backups.iterdir()) == ["custom", "instances"]


# What does not


NAMES = ("..", "../x", "a/b", "/abs", "%2f", "-rf", "$(id)", "%", "a" * 64, "1a", "a_b")


async def test_names(app: Any) -> None:
    for name in NAMES:
        assert (await send(app, archive(), headers={"X-LXD-name": name}))[0] == 400
        assert (await send(app, archive(changed("name", name))))[0] == 400
        assert (await send(app, archive(changed("config|container|profiles|0", name))))[0] in (400, 404)
    for name in ("..", "../x", "a/b", "/abs", "-rf", "a b", "a\nb", ""):
        for path in ("snapshots|0", "config|snapshots|0|name"):
            assert (await send(app, archive(changed(path, name))))[0] == 400
    for name in ("..", "../x", "a/b", "/abs", "-rf", "a\nb"):
        assert (await send(app, archive(changed("pool", name))))[0] == 400
    await assert_nothing_left(app)


DESCRIPTIONS: list[tuple[str, Any, str]] = [
    ("config|container|profiles|0", "gone", "Requested profile 'gone' doesn't exist"),
    ("config|container|config|user.a\nlxc.hook.pre-start", "x", ""),
    ("config|container|config|unknown.key", "x", "unknown.key"),
    ("config|container|config|limits.cpu", "a\nlxc.hook.pre-start = /bin/sh", "limits.cpu"),
    ("config|container|config|volatile.uuid", "no uuid", "volatile.uuid"),
    ("config|container|config|volatile.last_state.idmap", "[{", "no map"),
    ("config|container|config|volatile.last_state.idmap", SHIFT.replace("100000", '"x"'), ""),
    ("config|container|architecture", "abacus", "abacus"),
    ("config|container|devices|x", {"type": "nonsense"}, ""),
    ("config|container|devices|../x", {"type": "none"}, ""),
    ("config|container|devices|eth0", {"type": "nic", "network": "gone"}, ""),
    ("config|container|created_at", "yesterday", "no time"),
    ("config|snapshots|0|config|unknown.key", "x", "unknown.key"),
    ("config|snapshots|0|devices|x", {"type": "nonsense"}, ""),
    ("config|snapshots|0|architecture", "abacus", "abacus"),
    ("config|volume|config|unknown.key", "x", "unknown.key"),
    ("config|volume_snapshots|0|config|size", "x", "size"),
    ("config|snapshots", [], "differ"),
    ("type", "virtual-machine", "irtual machine"),
    ("optimized", True, "differs from"),
]


async def test_descriptions_that_cannot_be(app: Any) -> None:
    for path, value, says in DESCRIPTIONS:
        status, error = await send(app, archive(changed(path, value)))
        assert status in (400, 404, 501) and says in error, (path, status, error)
        await assert_nothing_left(app)


ARCHIVES = [
    b"",
    b"garbage",
    archive(b"name: ["),
    archive(without=["index"]),
    archive(without=["backup/container"]),
    archive(without=["backup/snapshots/s0"]),
    archive()[:2000],
    archive()[:4000],
    archive(more=[info("backup/container/rootfs/../../x")]),
    archive(more=[info("backup/container/rootfs", kind=tarfile.SYMTYPE, link="/")]),
    archive(more=[info("backup/container/metadata.yaml", kind=tarfile.SYMTYPE, link="/etc/passwd")]),
    archive(more=[info("backup/container/rootfs/x", kind=tarfile.LNKTYPE, link="/etc/passwd")]),
    archive(changed("snapshots", []))[:3000],
]


async def test_archives_that_cannot_be(app: Any) -> None:
    for number, data in enumerate(ARCHIVES):
        status, error = await send(app, data)
        assert status == 400, (number, status, error)
        await assert_nothing_left(app)


async def test_more_snapshots_than_are_told(app: Any) -> None:
    """Those that the index does not name are none."""
    assert (await send(app, archive(changed("snapshots", []))))[0] == 200
    assert await app.get("/1.0/instances/c1/snapshots") == []
    await assert_nothing_left(app, "c1")


async def test_a_cut_upload_leaves_nothing(app: Any, until: Any) -> None:
    _, writer = await asyncio.open_unix_connection(str(app.paths.socket))
    head = b"POST /1.0/instances HTTP/1.1\r\nHost: a\r\nContent-Type: application/octet-stream\r\nContent-Length: 99999\r\n\r\n"
    writer.write(head + archive()[:3000])
    await writer.drain()
    await until(lambda: bool(list(app.paths.backups.glob(".import-*"))))
    writer.close()
    await until(lambda: not list(app.paths.backups.glob(".import-*")))
    await assert_nothing_left(app)


# Descriptions beside the volumes, and recovery


async def forget(app: Any, *tables: str) -> None:
    for table in tables:
        await app.do("POST", "/internal/sql", {"database": "global", "query": f"DELETE FROM {table} WHERE name = 'c1'"})


@pytest.fixture
async def lost(app: Any, until: Any) -> Any:
    """An app whose database has lost instance c1, with one snapshot."""
    folder = app.daemon.storage.driver("pool").data(volume("c1"))
    folder.mkdir(parents=True)
    await app.create("c1", config={"user.a": "1"})
    await app.do("POST", "/1.0/instances/c1/snapshots", {"name": "s0"})
    await app.do("PATCH", "/1.0/instances/c1", {"config": {"user.a": "2"}})
    path = folder / "backup.yaml"
    await until(lambda: path.exists() and all(word in path.read_text() for word in ('user.a: "2"', "name: s0")))
    assert path.stat().st_mode & 0o777 == 0o400
    await forget(app, "instances", "storage_volumes")
    return app


async def recover(app: Any, step: str, *pools: Mapping[str, Any]) -> tuple[int, Any]:
    status, content = await app.call("POST", f"/internal/recover/{step}", {"pools": list(pools) or [{"name": "pool"}]})
    return status, content["error"] or content["metadata"]


async def test_a_lost_instance_is_found(lost: Any) -> None:
    found = {"name": "c1", "type": "container", "snapshotCount": 1, "project": "default", "pool": "pool"}
    assert await recover(lost, "validate") == (200, {"UnknownVolumes": [found], "DependencyErrors": None})
    assert await recover(lost, "import") == (200, {})
    back = await lost.get("/1.0/instances/c1?recursion=1")
    assert back["config"]["user.a"] == "2" and [each["name"] for each in back["snapshots"]] == ["s0"]
    assert back["snapshots"][0]["config"]["user.a"] == "1"
    assert await recover(lost, "validate") == (200, {"UnknownVolumes": None, "DependencyErrors": None})


async def test_networks_know_what_was_recovered(app: Any, until: Any) -> None:
    await app.do("POST", "/1.0/networks", {"name": "atolltest0", "config": {"ipv4.address": "10.7.7.1/24"}})
    folder = app.daemon.storage.driver("pool").data(volume("c1"))
    folder.mkdir(parents=True)
    await app.create("c1", devices={"eth0": {"type": "nic", "network": "atolltest0", "ipv4.address": "10.7.7.7"}})
    path = folder / "backup.yaml"
    await until(lambda: path.exists() and "hwaddr" in path.read_text())
    leases = await app.get("/1.0/networks/atolltest0/leases")
    await forget(app, "instances", "storage_volumes")
    await app.daemon.networks.release("default", "c1")
    assert await recover(app, "import") == (200, {})
    assert "10.7.7.7" in {lease["address"] for lease in leases}
    assert await app.get("/1.0/networks/atolltest0/leases") == leases


OTHER_THINGS = [
    ("  name: c1\n", "  name: c2\n", "different instance name"),
    ("  name: pool\n", "  name: other\n", "pool name mismatch"),
    ("  driver: dir\n", "  driver: btrfs\n", "pool driver mismatch"),
    ("  name: s0\n", "  name: s1\n", "snapshot inconsistency"),
    ("  name: s0\n", "  name: ../s0\n", "Failed parsing backup file"),
    ("pool:", "pool: [", "Failed parsing backup file"),
    (
        'volatile.last_state.idmap: "[]"',
        f"volatile.last_state.idmap: {json.dumps(SHIFT)}",
        "ids of another server",
    ),
]


async def test_a_description_of_something_else(lost: Any) -> None:
    path = lost.daemon.storage.driver("pool").data(volume("c1")) / "backup.yaml"
    right = path.read_text()
    for old, new, says in OTHER_THINGS:
        path.write_text(right.replace(old, new))
        for step in ("validate", "import"):
            status, error = await recover(lost, step)
            assert status == 400 and says in error, (new, error)
    assert await lost.get("/1.0/instances") == []


async def test_a_description_that_is_a_link(lost: Any, tmp_path: Path) -> None:
    path = lost.daemon.storage.driver("pool").data(volume("c1")) / "backup.yaml"
    (tmp_path / "elsewhere").write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    assert (await recover(lost, "validate"))[0] == 400


async def test_what_is_missing_is_told(lost: Any) -> None:
    path = lost.daemon.storage.driver("pool").data(volume("c1")) / "backup.yaml"
    nic = "devices:\n    eth0: {type: nic, network: net9}\n    d: {type: disk, pool: gone, source: v, path: /d}\n"
    path.write_text(path.read_text().replace("  - default\n", "  - lost\n", 1).replace("devices: {}\n", nic, 1))
    lost.daemon.storage.driver("pool").sizes[VolumeId(VolumeKind.CUSTOM, "nop", "v1")] = None
    missing = [
        'Project "nop"', 'Profile "lost" in project "default"', 'Network "net9" in project "default"', 'Storage pool "gone"',
    ]  # fmt: skip
    for step in ("validate", "import"):
        status, found = await recover(lost, step)
        assert status == 200 and found["DependencyErrors"] == missing
    assert await lost.get("/1.0/instances") == []


async def test_custom_volumes_are_found(app: Any) -> None:
    own = VolumeId(VolumeKind.CUSTOM, "default", "v_1")
    app.daemon.storage.driver("pool").sizes |= {own: None, own.at("s1"): None, own.at("s0"): None}
    assert await recover(app, "import") == (200, {})
    base = "/1.0/storage-pools/pool/volumes/custom/v_1"
    assert sorted(await app.get(f"{base}/snapshots")) == [f"{base}/snapshots/s0", f"{base}/snapshots/s1"]


async def test_names_on_disk(app: Any) -> None:
    sizes = app.daemon.storage.driver("pool").sizes
    for name in ("..", "a/b", "-rf", "a b", "\n"):
        for found in (
            VolumeId(VolumeKind.CUSTOM, "default", name),
            VolumeId(VolumeKind.INSTANCE, "default", name),
            VolumeId(VolumeKind.CUSTOM, name, "v"),
            VolumeId(VolumeKind.CUSTOM, "default", "v", name),
        ):
            sizes[found] = None
            status, error = await recover(app, "import")
            assert status == 400 and "Failed checking volumes" in error
            del sizes[found]


POOLS: list[tuple[dict[str, Any], str]] = [
    ({"name": "new", "driver": "zz"}, "Unknown driver"),
    ({"name": "new"}, "Unknown driver"),
    ({"name": "../x", "driver": "dir"}, "Storage pool name"),
    ({"name": "new", "driver": "dir", "config": {"bad.key": "1"}}, "bad.key"),
    ({"name": "new", "driver": "dir", "config": {"source": "/nonexistent"}}, "no storage pool at"),
    ({"name": "new", "driver": "dir", "config": {"source": "/etc"}}, "no storage pool at"),
    ({"name": "new", "driver": "dir", "config": {"source": "relative"}}, "relative"),
]


async def test_pools_that_cannot_be(app: Any) -> None:
    for pool, says in POOLS:
        status, error = await recover(app, "validate", pool)
        assert status == 400 and says in error, error
    assert not (app.paths.pools / "new").exists()


async def test_a_lost_pool_is_where_it_is_said_to_be(lost: Any) -> None:
    """The rest of its configuration is the instance's to tell."""
    path = lost.daemon.storage.driver("pool").data(volume("c1")) / "backup.yaml"
    source = str(lost.paths.pools / "pool")
    path.write_text(path.read_text().replace(f"    source: {source}\n", "    source: /etc\n    user.foo: bar\n"))
    await lost.do("POST", "/internal/sql", {"database": "global", "query": "DELETE FROM storage_pools"})
    (lost.paths.pools / "pool" / "containers").mkdir(parents=True, exist_ok=True)
    assert await recover(lost, "import", {"name": "pool", "driver": "dir", "config": {"source": source}}) == (200, {})
    assert (await lost.get("/1.0/storage-pools/pool"))["config"] == {"source": source, "user.foo": "bar"}
    assert await lost.get("/1.0/instances") == ["/1.0/instances/c1"]
