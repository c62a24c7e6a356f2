"""Volumes that are disks, and those made of files that clients send, on a pool with real folders."""

from __future__ import annotations

import errno
import io
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import archives
import pytest

from atoll.drivers.storage.contract import VolumeId, VolumeKind
from atoll.host import disk_image, file_copy, mount, syscalls
from atoll.host.disk_image import Measure

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="archives are packed and unpacked in jails, which takes root")

MIB, GIB = 1 << 20, 1 << 30
POOLS = "/1.0/storage-pools"
CUSTOM, SECOND = f"{POOLS}/real/volumes/custom", f"{POOLS}/second/volumes/custom"
OCTETS = {"Content-Type": "application/octet-stream"}


@pytest.fixture
async def pools(app: Any) -> AsyncIterator[Any]:
    """A pool that keeps files; nothing of the test is left in it, or in a second one, but what the database knows."""
    await app.do("POST", POOLS, {"name": "real", "driver": "overlay"})
    yield app
    for name in {"real", "second"} & {each["name"] for each in await app.get(f"{POOLS}?recursion=1")}:
        known = {each["name"] for each in await app.get(f"{POOLS}/{name}/volumes/custom?recursion=1")}
        root = app.paths.pools / name
        found = {path.name.removeprefix("default_") for path in (root / "custom").iterdir()}
        found |= {"/".join(path.parts[-2:]).removeprefix("default_") for path in (root / "custom-snapshots").glob("*/*")}
        assert found == known and list((root / ".aside").iterdir()) == []
    assert sorted(path.name for path in app.paths.backups.iterdir()) == ["custom", "instances"]


async def add_second(app: Any) -> None:
    await app.do("POST", POOLS, {"name": "second", "driver": "overlay"})


def folder(app: Any, name: str, snapshot: str = "", pool: str = "real") -> Path:
    """Where a disk is."""
    data: Path = app.daemon.storage.driver(pool).data(VolumeId(VolumeKind.CUSTOM, "default", name, snapshot))
    return data


def write(app: Any, name: str, position: int, data: bytes) -> None:
    with disk_image.opened(folder(app, name)) as image:
        disk_image.write(image, position, data)


def read(where: Path, position: int, size: int = 4) -> bytes:
    with disk_image.opened(where, flags=os.O_RDONLY) as image:
        return os.pread(image, size, position)


async def make(app: Any, name: str, **config: str) -> None:
    await app.do("POST", CUSTOM, {"name": name, "content_type": "block", "config": config})


async def send(app: Any, content: bytes, **headers: str) -> Any:
    """A file to be made a volume; the ended operation, or the refusal."""
    maker = "Incus" if headers.get("type") == "iso" else "LXD"  # clients of both
    named = {f"X-{maker}-{name}": value for name, value in headers.items()}
    async with app.session.post(CUSTOM, data=content, headers={**OCTETS, **named}) as answer:
        told = await answer.json()
    return await app.ended(told) if answer.status == 202 else told


async def packed(app: Any, name: str) -> bytes:
    """A backup of a volume, as it is fetched."""
    await app.do("POST", f"{CUSTOM}/{name}/backups", {"name": "b", "compression_algorithm": "none"})
    async with app.session.get(f"{CUSTOM}/{name}/backups/b/export") as answer:
        content = bytes(await answer.read())
    await app.do("DELETE", f"{CUSTOM}/{name}/backups/b")
    return content


# Disks


async def test_sizes(pools: Any) -> None:
    await make(pools, "usual")
    await make(pools, "small", size="100001")
    await pools.do("PATCH", f"{POOLS}/real", {"config": {"volume.size": "5MiB", "volume.snapshots.expiry": "1d"}})
    await make(pools, "pool")
    sizes = {name: disk_image.measure(folder(pools, name)) for name in ("usual", "small", "pool")}
    assert sizes == {"usual": Measure(10 * GIB, 0), "small": Measure(106_496, 0), "pool": Measure(5 * MIB, 0)}
    assert (await pools.get(f"{CUSTOM}/usual"))["config"] == {}
    assert (await pools.get(f"{CUSTOM}/pool"))["config"] == {"size": "5MiB", "snapshots.expiry": "1d"}
    assert (await pools.get(f"{CUSTOM}/pool"))["content_type"] == "block"
    for name, size in (("usual", "9GiB"), ("pool", "4MiB")):
        refused = await pools.refused("PATCH", f"{CUSTOM}/{name}", {"config": {"size": size}})
        assert refused[0] == 400 and refused[1].startswith("Block volumes cannot be shrunk")
    await pools.do("PATCH", f"{CUSTOM}/pool", {"config": {"size": "1GiB", "security.shared": "true"}})
    await pools.do("PUT", f"{CUSTOM}/pool", {"config": {}})  # it stays as large as it is
    assert (await pools.get(f"{CUSTOM}/pool/state"))["usage"] == {"used": 0, "total": GIB}
    for key in ("security.shifted", "security.unmapped", "block.filesystem"):
        assert (await pools.refused("PATCH", f"{CUSTOM}/pool", {"config": {key: "true"}}))[0] == 400


async def test_a_size_goes_back_when_the_record_cannot_be_written(pools: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any) -> None:
        raise RuntimeError

    await make(pools, "v", size="1MiB")
    with monkeypatch.context() as patched:
        patched.setattr("atoll.db.storage.update_volume", fail)
        assert (await pools.call("PATCH", f"{CUSTOM}/v", {"config": {"size": "2MiB"}}))[0] == 500
    assert disk_image.measure(folder(pools, "v")).size == MIB


async def test_what_is_done_to_a_disk(pools: Any) -> None:
    await add_second(pools)
    await make(pools, "v", size="1GiB")
    write(pools, "v", 0, b"then")
    await pools.do("POST", f"{CUSTOM}/v/snapshots", {"name": "s"})
    write(pools, "v", 0, b"now!")
    await pools.do("PATCH", f"{CUSTOM}/v", {"config": {"size": "2GiB"}})
    for target in (CUSTOM, SECOND):
        await pools.do("POST", target, {"name": "copy", "source": {"type": "copy", "name": "v", "pool": "real"}})
    await pools.do("POST", CUSTOM, {"name": "old", "source": {"type": "copy", "name": "v/s", "pool": "real"}})
    await pools.do("POST", f"{CUSTOM}/copy", {"name": "moved", "pool": "second"})
    await pools.do("PUT", f"{CUSTOM}/v", {"restore": "s"})
    for where in (folder(pools, "copy", pool="second"), folder(pools, "moved", pool="second")):
        assert (read(where, 0), disk_image.measure(where).size) == (b"now!", 2 * GIB)
    for where, size in ((folder(pools, "v"), 2), (folder(pools, "old"), 1), (folder(pools, "moved", "s", "second"), 1)):
        assert (read(where, 0), disk_image.measure(where).size) == (b"then", size * GIB)
        assert disk_image.measure(where).used < MIB
    write(pools, "v", MIB, b"more")
    await pools.do("DELETE", f"{CUSTOM}/v/snapshots/s")
    await pools.do("POST", f"{CUSTOM}/v/snapshots", {"name": "t"})
    write(pools, "v", 0, bytes(4096))
    body = {"name": "copy", "source": {"type": "copy", "name": "v", "pool": "real", "refresh": True}}
    await pools.do("POST", SECOND, body)
    assert [each["name"] for each in await pools.get(f"{SECOND}/copy/snapshots?recursion=1")] == ["copy/t"]
    assert read(folder(pools, "copy", "t", "second"), 0) == b"then"
    assert (read(folder(pools, "copy", pool="second"), 0), read(folder(pools, "copy", pool="second"), MIB)) == (bytes(4), b"more")


async def test_disks_and_folders_are_not_mixed_up(pools: Any) -> None:
    await add_second(pools)
    await make(pools, "v", size="1MiB")
    await pools.do("POST", CUSTOM, {"name": "files"})
    for name, other in (("v", "files"), ("files", "v")):
        body = {"name": name, "source": {"type": "copy", "name": other, "pool": "real", "refresh": True}}
        assert (await pools.refused("POST", CUSTOM, body)) == (400, "Volume content types do not match")
    body = {"name": "less", "config": {"size": "8192"}, "source": {"type": "copy", "name": "v", "pool": "real"}}
    refused = await pools.refused("POST", SECOND, body)
    assert refused[1].startswith("Block volumes cannot be shrunk")
    await pools.do("POST", SECOND, {**body, "config": {"size": "1MiB"}})
    await pools.do("PATCH", f"{CUSTOM}/v", {"config": {"size": "2MiB"}})
    write(pools, "v", 0, b"new!")
    refused = await pools.refused("POST", SECOND, {**body, "source": {**body["source"], "refresh": True}})
    assert refused[1].startswith("Block volumes cannot be shrunk")
    assert read(folder(pools, "less", pool="second"), 0) == bytes(4)
    await pools.create("c1")
    for path in ({}, {"path": "/x"}):
        device = {"type": "disk", "pool": "real", "source": "v", **path}
        refused = await pools.refused("PATCH", "/1.0/instances/c1", {"devices": {"v": device}})
        assert refused[0] == 400 and "Custom block volumes cannot be used on containers" in refused[1]


async def test_from_a_disk_to_a_file_and_back(pools: Any) -> None:
    await make(pools, "v", size="1GiB")
    write(pools, "v", 5 * MIB, b"then")
    await pools.do("POST", f"{CUSTOM}/v/snapshots", {"name": "s"})
    write(pools, "v", 5 * MIB, b"now!")
    content = await packed(pools, "v")
    assert len(content) < MIB
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        assert tar.getnames() == ["backup/index.yaml", "backup/volume-snapshots/s.img", "backup/volume.img"]
    assert (await send(pools, content, name="again"))["err"] == ""
    for name in ("v", "again"):
        assert read(folder(pools, name), 5 * MIB) + read(folder(pools, name, "s"), 5 * MIB) == b"now!then"
        assert disk_image.measure(folder(pools, name)).size == GIB
    assert disk_image.measure(folder(pools, "again")).used < MIB
    shown = [await pools.get(f"{CUSTOM}/{name}/snapshots/s") for name in ("v", "again")]
    assert shown[0] == shown[1] and shown[0]["content_type"] == "block"


def archive(size: int, config: dict[str, str]) -> bytes:
    """A disk's backup, as LXD makes it: with all its zeros."""
    volume = {"name": "v", "content_type": "block", "config": config}
    index = {"name": "v", "backend": "dir", "pool": "p", "type": "custom", "config": {"volume": volume}}
    disk = (archives.info("backup/volume.img", size), b"disk".ljust(size, b"\0"))
    return archives.backup(index, [disk], mode="w:gz")


async def test_a_backup_of_lxd(pools: Any) -> None:
    await pools.do("PATCH", f"{POOLS}/real", {"config": {"volume.size": "1MiB"}})  # is for new disks only
    assert (await send(pools, archive(9 * MIB, {}), name="a"))["err"] == ""
    assert (await send(pools, archive(9 * MIB, {"size": "20MiB"}), name="b"))["err"] == ""
    assert [disk_image.measure(folder(pools, name)).size for name in ("a", "b")] == [9 * MIB, 20 * MIB]
    assert disk_image.measure(folder(pools, "a")).used < MIB
    assert "cannot be shrunk" in (await send(pools, archive(9 * MIB, {"size": "1MiB"}), name="c"))["err"]


# Files of other kinds


async def test_an_iso(pools: Any) -> None:
    await add_second(pools)
    content = os.urandom(100_001)
    assert (await send(pools, content, type="iso", name="cd"))["err"] == ""
    found = await pools.get(f"{CUSTOM}/cd")
    assert (found["content_type"], found["config"]) == ("iso", {"size": "100001"})
    await pools.do("POST", SECOND, {"name": "cd", "source": {"type": "copy", "name": "cd", "pool": "real"}})
    await pools.do("POST", f"{SECOND}/cd", {"name": "moved", "pool": "real"})
    assert (await send(pools, await packed(pools, "cd"), name="again"))["err"] == ""
    for name in ("cd", "moved", "again"):
        assert read(folder(pools, name), 0, 200_000) == content
    for body in ({"config": {"size": "1GiB"}}, {"config": {"snapshots.expiry": "1d"}}):
        assert (await pools.refused("PATCH", f"{CUSTOM}/cd", body))[0] == 400
    assert "cannot have snapshots" in (await pools.refused("POST", f"{CUSTOM}/cd/snapshots", {}))[1]
    await pools.do("PATCH", f"{CUSTOM}/cd", {"config": {"user.a": "1"}, "description": "d"})


def tree(*entries: tarfile.TarInfo) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz", format=tarfile.GNU_FORMAT) as tar:
        for each in entries:
            tar.addfile(each, io.BytesIO(bytes(each.size)))
    return file.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, *, size: int = 0, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    return archives.info(name, size, kind=kind, link=link, mode=mode, ids=1000)


async def test_a_tar_archive(pools: Any) -> None:
    files = [
        entry(".", tarfile.DIRTYPE, mode=0o1777), entry("./a", size=5), entry("b/c", size=5), entry("null", tarfile.CHRTYPE),
        entry("l", tarfile.SYMTYPE, link="/etc/passwd"), entry("./h", tarfile.LNKTYPE, link="./a"), entry("/top", size=1),
    ]  # fmt: skip
    assert (await send(pools, tree(*files), type="tar", name="t"))["err"] == ""
    where = folder(pools, "t")
    assert sorted(str(path.relative_to(where)) for path in where.rglob("*")) == ["a", "b", "b/c", "h", "l", "top"]
    assert (where.stat().st_mode & 0o7777, where.stat().st_uid, (where / "a").stat().st_nlink) == (0o1777, 1000, 2)
    assert (await pools.get(f"{CUSTOM}/t"))["content_type"] == "filesystem"
    assert (await send(pools, tree(), type="tar", name="empty"))["err"] == ""


async def test_files_that_cannot_be(pools: Any, tmp_path: Path) -> None:
    await make(pools, "taken", size="1MiB")
    for headers, says in (
        ({"type": "iso"}, "Missing volume name"), ({"type": "iso", "name": "taken"}, "already exists"),
        ({"type": "iso", "name": "../x"}, "../x"), ({"type": "nonsense", "name": "v"}, "Invalid type of file 'nonsense'"),
    ):  # fmt: skip
        assert says in (await send(pools, b"x", **headers))["error"]
    hostile = (
        entry("../x", size=1), entry("a/../../x", size=1), entry("x", tarfile.LNKTYPE, link="../../secret"),
        entry(".", tarfile.REGTYPE, size=1),
    )  # fmt: skip
    of_nobody = entry(".", tarfile.DIRTYPE)
    of_nobody.uid = 1 << 40
    for content in (b"", b"x" * 1000, *(tree(each) for each in (*hostile, of_nobody))):
        assert (await send(pools, content, type="tar", name="v"))["err"]
    (tmp_path / "there").mkdir()
    through = tree(entry("l", tarfile.SYMTYPE, link=str(tmp_path)), entry("l/there/x", size=1))
    await send(pools, through, type="tar", name="v")
    assert list((tmp_path / "there").iterdir()) == []
    assert (await send(pools, b"", type="iso", name="v"))["err"] == "The file is empty"


# When there is no room, or a kill


@pytest.fixture
async def tight(pools: Any, tmp_path: Path) -> AsyncIterator[Any]:
    """A pool of few megabytes in the place of the first."""
    await pools.do("DELETE", f"{POOLS}/real")
    syscalls.mount("tmpfs", tmp_path, "tmpfs", 0, "size=6m")
    try:
        await pools.do("POST", POOLS, {"name": "real", "driver": "overlay", "config": {"source": str(tmp_path)}})
        yield pools
        for each in await pools.get(f"{CUSTOM}?recursion=1"):
            if "/" not in each["name"]:
                await pools.do("DELETE", f"{CUSTOM}/{each['name']}")
        assert list((pools.paths.pools / "real/.aside").iterdir()) == []
        await pools.do("DELETE", f"{POOLS}/real")
        await pools.do("POST", POOLS, {"name": "real", "driver": "overlay"})
    finally:
        mount.unmount(tmp_path, lazy=True)


async def test_without_room_nothing_half_remains(tight: Any) -> None:
    await make(tight, "v", size="1GiB")
    write(tight, "v", 0, os.urandom(PIECES := disk_image.PIECE))
    for number in range(1, 14):
        write(tight, "v", number * PIECES, os.urandom(PIECES))
    backup = await packed(tight, "v")
    copy = {"name": "w", "source": {"type": "copy", "name": "v", "pool": "real"}}
    for refused in (
        await tight.refused("POST", f"{CUSTOM}/v/snapshots", {"name": "s"}), await tight.refused("POST", CUSTOM, copy),
    ):  # fmt: skip
        assert "No space left" in refused[1]
    for content, kind in ((backup, "backup"), (os.urandom(5 * MIB), "iso"), (tree(entry("a", size=5 * MIB)), "tar")):
        assert (await send(tight, content, name="w", type=kind))["err"]
    assert await tight.get(CUSTOM) == [f"{CUSTOM}/v"]
    assert [path.name for path in (tight.paths.pools / "real/custom").iterdir()] == ["default_v"]


async def test_without_room_a_restore_changes_nothing(tight: Any) -> None:
    await make(tight, "v", size="1GiB")
    write(tight, "v", 0, then := os.urandom(disk_image.PIECE))
    await tight.do("POST", f"{CUSTOM}/v/snapshots", {"name": "s"})
    write(tight, "v", 0, now := os.urandom(disk_image.PIECE))
    await make(tight, "w", size="1GiB")
    try:
        for number in range(40):
            write(tight, "w", number * disk_image.PIECE, os.urandom(disk_image.PIECE))
    except OSError as error:
        assert error.errno == errno.ENOSPC
    _, content = await tight.call("PUT", f"{CUSTOM}/v", {"restore": "s"})
    assert "No space left" in content["error"]
    assert read(folder(tight, "v"), 0, disk_image.PIECE) == now
    await tight.do("DELETE", f"{CUSTOM}/w")
    await tight.do("PUT", f"{CUSTOM}/v", {"restore": "s"})
    assert read(folder(tight, "v"), 0, disk_image.PIECE) == then


async def sql(app: Any, query: str) -> None:
    await app.do("POST", "/internal/sql", {"database": "global", "query": query})


async def test_what_a_kill_leaves(pools: Any) -> None:
    await make(pools, "half", size="1MiB")
    await make(pools, "v", size="1MiB")
    await pools.do("POST", f"{CUSTOM}/v/snapshots", {"name": "s"})
    await pools.do("PATCH", f"{CUSTOM}/v", {"config": {"size": "2MiB"}})
    await sql(pools, "UPDATE storage_volumes SET phase = 'creating' WHERE name = 'half'")
    await sql(pools, "UPDATE storage_volumes SET phase = 'restoring' WHERE name = 'v'")
    disk_image.resize(folder(pools, "v"), MIB)  # as the snapshot was
    (pools.paths.backups / ".import-x").mkdir()
    (pools.paths.backups / ".import-x/upload").write_bytes(b"x")
    await pools.restart()
    assert await pools.get(CUSTOM) == [f"{CUSTOM}/v", f"{CUSTOM}/v/snapshots/s"]
    assert disk_image.measure(folder(pools, "v")).size == 2 * MIB
    await pools.do("PUT", f"{CUSTOM}/v", {"restore": "s"})


async def test_a_file_system_without_reflinks_keeps_holes(pools: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_copy, "_clone", lambda *_: False)
    await make(pools, "v")
    write(pools, "v", 5 * GIB, b"x")
    await pools.do("POST", f"{CUSTOM}/v/snapshots", {"name": "s"})
    found = disk_image.measure(folder(pools, "v", "s"))
    assert found.size == 10 * GIB and found.used < MIB
