"""Cases of the disk driver: real binds, in a mount namespace of their own."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from atoll.domain.errors import BadRequest, Forbidden, NotFound, Unsupported
from atoll.domain.idmap import IdMap
from atoll.drivers.device import disk
from atoll.drivers.device.contract import DeviceContext, VolumeSource
from atoll.drivers.device.disk import DiskDevice
from atoll.drivers.instance.contract import MachineId
from atoll.host import loop, mount, process, syscalls

pytestmark = pytest.mark.system

IDMAP = IdMap.plain(1_000_000, 65536)


def context(folder: Path, **config: str) -> DeviceContext:
    settings = {"type": "disk", "path": "/mnt/data", "source": str(folder / "share"), **config}
    return DeviceContext(MachineId("default", "c1"), "data", settings, {}, folder / "run")


def read(path: str) -> str:
    return Path(path).read_text()


def only_mount(folder: Path) -> mount.Entry:
    """The one mount there is."""
    (entry,) = mount.mounts_below(folder)
    return entry


@pytest.fixture
def share(folder: Path) -> Path:
    path = folder / "share"
    path.mkdir()
    (path / "file").write_text("mine")
    return path


async def test_source_that_is_swapped_afterwards_changes_nothing(share: Path, folder: Path) -> None:
    device, data = DiskDevice(), context(folder, readonly="true", propagation="rslave")
    (spec,) = (await device.prepare(data)).mounts
    os.rename(share, folder / "moved")
    os.symlink("/etc", share)
    assert (Path(spec.source) / "file").read_text() == "mine"
    assert (spec.target, spec.options, spec.is_file) == ("mnt/data", ("rbind", "rslave"), False)
    assert "ro" in only_mount(folder).options
    assert await device.release(data) == {}
    assert await device.release(data) == {}
    assert mount.mounts_below(folder) == []
    assert not disk.pin_path(data).exists()
    assert (folder / "moved/file").read_text() == "mine"


async def test_file_and_shift(share: Path, folder: Path) -> None:
    """What a machine may not do is a matter of the pin; so is whose the files are."""
    raw = {"raw.mount.options": "noexec,nodev,noatime,uid=5"}
    device, data = DiskDevice(), context(folder, source=str(share / "file"), shift="true", **raw)
    (spec,) = (await device.prepare(replace(data, idmap=IDMAP))).mounts
    assert spec.is_file
    assert spec.options == ("rbind",)
    assert only_mount(folder).options >= {"noexec", "nodev", "noatime", "idmapped"}
    assert (read(spec.source), os.stat(spec.source).st_uid) == ("mine", IDMAP.root)
    (spec,) = (await device.prepare(data)).mounts
    assert os.stat(spec.source).st_uid == 0
    await device.release(data)
    assert mount.mounts_below(folder) == []


async def test_mounts_below_the_source(share: Path, folder: Path) -> None:
    """They are there if wanted, as restricted and as shifted as the rest, and stay where they were when the disk goes."""
    (share / "inner").mkdir()
    mount.bind(folder, share / "inner")
    device = DiskDevice()
    plain = context(folder)
    (spec,) = (await device.prepare(plain)).mounts
    assert os.listdir(f"{spec.source}/inner") == []
    all_of_it = replace(context(folder, recursive="true", readonly="true", shift="true"), idmap=IDMAP)
    (spec,) = (await device.prepare(all_of_it)).mounts
    below = [entry for entry in mount.mounts_below(folder) if entry.target.is_relative_to(spec.source)]
    assert [entry.options >= {"ro", "idmapped"} for entry in below] == [True, True]
    await device.release(all_of_it)
    assert [entry.target for entry in mount.mounts_below(folder)] == [share / "inner"]
    mount.unmount(share / "inner")


@pytest.mark.parametrize("propagation", ["", "private", "slave", "rshared"])
async def test_propagation(share: Path, folder: Path, propagation: str) -> None:
    """What is mounted below a shared source later shows if wanted; what is mounted in the pin never shows on the host."""
    (share / "sub").mkdir()
    (share / "in").mkdir()
    mount.bind(share, share)
    syscalls.mount_setattr(share, 0, propagation=syscalls.MS_SHARED)
    device, data = DiskDevice(), context(folder, propagation=propagation)
    (spec,) = (await device.prepare(data)).mounts
    mount.bind(share / "in", Path(f"{spec.source}/in"))
    mount.bind(share / "in", share / "sub")
    there = {str(entry.target) for entry in mount.mounts_below(folder)}
    assert (f"{spec.source}/sub" in there) == (propagation in ("slave", "rshared"))
    assert f"{share}/in" not in there
    await device.release(data)
    assert [entry.target for entry in mount.mounts_below(folder)] == [share, share / "sub"]
    mount.unmount_below(share)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
async def test_block_device(folder: Path, kind: str) -> None:
    """Several machines have the file system that is on it, each with its own ids, one of them read-only."""
    image = folder / "image"
    with image.open("wb") as file:
        file.truncate(320 << 20)
    await process.run([f"mkfs.{kind}", "-q", str(image)], timeout=60)
    device = DiskDevice()
    with loop.attached(image) as block:
        config = {"source": str(block), "shift": "true", "raw.mount.options": "noexec,noatime"}
        first = replace(context(folder, **config), idmap=IDMAP)
        second = replace(context(folder, **config, readonly="true"), run_dir=folder / "run2", idmap=None)
        (spec,) = (await device.prepare(first)).mounts
        (other,) = (await device.prepare(second)).mounts
        found = {str(entry.target): entry.options for entry in mount.mounts_below(folder)}
        assert found[spec.source] >= {"rw", "noexec", "noatime", "idmapped"}
        assert found[other.source] >= {"ro", "noexec"}
        assert (os.stat(spec.source).st_uid, os.stat(other.source).st_uid) == (IDMAP.root, 0)
        await device.release(first)
        await device.release(second)
        assert mount.mounts_below(folder) == []


async def test_block_device_that_is_never_written(share: Path, folder: Path) -> None:
    await process.run(["mksquashfs", str(share), str(folder / "image"), "-quiet"])
    with loop.attached(folder / "image") as block:
        data = context(folder, source=str(block))
        (spec,) = (await DiskDevice().prepare(data)).mounts
        assert read(f"{spec.source}/file") == "mine"
        await DiskDevice().release(data)
    assert mount.mounts_below(folder) == []


async def test_block_device_without_file_system(folder: Path) -> None:
    image = folder / "image"
    image.write_bytes(bytes(1 << 20))
    with loop.attached(image) as block:
        with pytest.raises(Unsupported, match="no file system"):
            await DiskDevice().prepare(context(folder, source=str(block)))
    assert mount.mounts_below(folder) == []


async def test_pipe_is_refused(folder: Path) -> None:
    os.mkfifo(folder / "share")
    with pytest.raises(BadRequest, match="neither"):
        await DiskDevice().prepare(context(folder))
    assert mount.mounts_below(folder) == []


async def test_seed_of_cloud_init(folder: Path) -> None:
    data = replace(context(folder, source="cloud-init:config"), seed={"user-data": "#cloud-config\n"}, idmap=IDMAP)
    (spec,) = (await DiskDevice().prepare(data)).mounts
    assert read(f"{spec.source}/user-data") == "#cloud-config\n"
    facts = os.stat(f"{spec.source}/user-data")
    assert (facts.st_uid, facts.st_mode & 0o777) == (IDMAP.root, 0o600)
    assert "ro" in only_mount(folder).options
    await DiskDevice().release(data)
    assert os.listdir(folder / "run/devices") == []


async def test_what_has_pins_is_known(share: Path, folder: Path) -> None:
    """Which of a machine's pins are none of its disks, or of a disk that is another one by now."""
    data = replace(context(folder), name="a/b.at")
    assert disk.strays(data.run_dir, {}) == {}
    await DiskDevice().prepare(data)
    for other in ({}, {"a/b.at": {"type": "none"}}, {"a/b.at": {**data.config, "readonly": "true"}}):
        assert disk.strays(data.run_dir, other) == {"a/b.at": "mnt/data"}
    assert disk.strays(data.run_dir, {"a/b.at": {**data.config, "limits.max": "1MB"}}) == {}
    await DiskDevice().release(data)
    assert disk.strays(data.run_dir, {}) == {}


async def test_prepare_again_after_a_crash_takes_the_place_over(share: Path, folder: Path) -> None:
    device, data = DiskDevice(), context(folder)
    await device.prepare(data)
    await device.prepare(data)
    assert len(mount.mounts_below(folder)) == 1
    await device.release(data)


async def test_missing_source(folder: Path) -> None:
    device = DiskDevice()
    with pytest.raises(NotFound):
        await device.prepare(context(folder))
    assert (await device.prepare(context(folder, required="false"))).mounts == ()
    assert mount.mounts_below(folder) == []


async def test_no_link_leads_out_of_the_allowed_folder(share: Path, folder: Path) -> None:
    device = DiskDevice()
    (share / "inside").mkdir()
    (share / "escape").symlink_to("/etc")
    (share / "up").symlink_to("../..")
    allowed = (share,)
    fine = replace(context(folder, source=str(share / "inside")), allowed_sources=allowed)
    assert (await device.prepare(fine)).mounts
    await device.release(fine)
    for source in (share / "escape", share / "up", share / "escape/ssl", folder, Path("/etc")):
        with pytest.raises(Forbidden):
            await device.prepare(replace(context(folder, source=str(source)), allowed_sources=allowed))
    assert mount.mounts_below(folder) == []


async def test_custom_volume_is_shifted_unless_it_is_said_not_to_be(share: Path, folder: Path) -> None:
    data = replace(context(folder, pool="default", source="vol"), volume=VolumeSource(share), idmap=IDMAP)
    unmapped = replace(data, volume=VolumeSource(share, mapped=False))
    for one, owner in ((data, IDMAP.root), (unmapped, 0), (replace(data, idmap=None), 0)):
        (spec,) = (await DiskDevice().prepare(one)).mounts
        assert (read(f"{spec.source}/file"), os.stat(spec.source).st_uid) == ("mine", owner)
    with pytest.raises(NotFound):
        await DiskDevice().prepare(replace(data, volume=None))
    await DiskDevice().release(data)
    assert mount.mounts_below(folder) == []


async def test_root_disk_gives_no_mount(folder: Path) -> None:
    assert (await DiskDevice().prepare(context(folder, path="/", source="", pool="default"))).mounts == ()


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"source": "ceph:pool/vol"}, Unsupported),
        ({"source": "cloud-init:other"}, Unsupported),
        ({"path": ""}, BadRequest),
        ({"path": "/mnt/../../etc"}, BadRequest),
        ({"source": "relative"}, BadRequest),
        ({"path": "//"}, BadRequest),
        ({"path": "/a" * 2001}, BadRequest),
        ({"path": "/" + "a" * 256}, BadRequest),
        ({"path": "/."}, BadRequest),
    ],
)
async def test_what_cannot_be_is_refused(folder: Path, config: dict[str, str], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        await DiskDevice().prepare(context(folder, **config))
    assert mount.mounts_below(folder) == []
