"""Cases of the disk driver: real binds, in a mount namespace of their own."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from atoll.domain.errors import BadRequest, Forbidden, NotFound, Unsupported
from atoll.drivers.device import disk
from atoll.drivers.device.contract import DeviceContext
from atoll.drivers.device.disk import DiskDevice
from atoll.drivers.instance.contract import MachineId
from atoll.host import mount

pytestmark = pytest.mark.system


def context(folder: Path, **config: str) -> DeviceContext:
    settings = {"type": "disk", "path": "/mnt/data", "source": str(folder / "share"), **config}
    return DeviceContext(MachineId("default", "c1"), "data", settings, {}, folder / "run")


def read(path: str) -> str:
    return Path(path).read_text()


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
    assert (spec.target, spec.options, spec.is_file, spec.idmapped) == ("mnt/data", ("bind", "ro", "rslave"), False, False)
    assert await device.release(data) == {}
    assert await device.release(data) == {}
    assert mount.mounts_below(folder) == []
    assert not disk.pin_path(data).exists()
    assert (folder / "moved/file").read_text() == "mine"


async def test_file_and_shift(share: Path, folder: Path) -> None:
    device, data = (
        DiskDevice(),
        context(folder, source=str(share / "file"), shift="true", **{"raw.mount.options": "noexec,nodev"}),
    )
    (spec,) = (await device.prepare(data)).mounts
    assert spec.is_file
    assert spec.idmapped
    assert spec.options == ("bind", "noexec", "nodev")
    assert read(spec.source) == "mine"
    assert (await device.prepare(replace(data, privileged=True))).mounts[0].idmapped is False
    await device.release(data)
    assert mount.mounts_below(folder) == []


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


async def test_custom_volume_is_shifted_unless_privileged(share: Path, folder: Path) -> None:
    data = replace(context(folder, pool="default", source="vol"), volumes={"default/vol": share})
    (spec,) = (await DiskDevice().prepare(data)).mounts
    assert (read(f"{spec.source}/file"), spec.idmapped) == ("mine", True)
    (spec,) = (await DiskDevice().prepare(replace(data, privileged=True))).mounts
    assert not spec.idmapped
    with pytest.raises(NotFound):
        await DiskDevice().prepare(replace(data, volumes={}))
    await DiskDevice().release(data)
    assert mount.mounts_below(folder) == []


async def test_root_disk_gives_no_mount(folder: Path) -> None:
    assert (await DiskDevice().prepare(context(folder, path="/", source="", pool="default"))).mounts == ()


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"source": "ceph:pool/vol"}, Unsupported),
        ({"source": "cloud-init:config"}, Unsupported),
        ({"path": ""}, BadRequest),
        ({"path": "/mnt/../../etc"}, BadRequest),
        ({"source": "relative"}, BadRequest),
        ({"source": "/dev/null"}, BadRequest),
    ],
)
async def test_what_cannot_be_is_refused(folder: Path, config: dict[str, str], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        await DiskDevice().prepare(context(folder, **config))
    assert mount.mounts_below(folder) == []
