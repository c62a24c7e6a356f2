"""The in-memory driver keeps the contract as far as it can without files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from atoll.domain.errors import Conflict, NotFound
from atoll.drivers.storage import REGISTRY
from atoll.drivers.storage.contract import Pool, StorageDriver, VolumeId, VolumeKind

IMAGE = VolumeId(VolumeKind.IMAGE, "default", "f" * 64)
C1 = VolumeId(VolumeKind.INSTANCE, "default", "c1")
C2 = VolumeId(VolumeKind.INSTANCE, "default", "c2")


@pytest.fixture
async def driver(tmp_path: Path) -> StorageDriver:
    """A pool with an image and an instance."""
    driver = REGISTRY.create("sim", Pool("p", tmp_path / "p"))
    await driver.create_pool()
    await driver.create(IMAGE)
    await driver.clone(IMAGE, C1)
    return driver


async def test_it_touches_no_disk(driver: StorageDriver, tmp_path: Path) -> None:
    await driver.snapshot(C1.at("s0"))
    await driver.mount(C1, None)
    await driver.unmount(C1)
    await driver.restore(C1.at("s0"))
    await driver.rename(C1, C2)
    assert os.listdir(tmp_path) == []
    assert await driver.usage([C1, C2, C2.at("s0")]) == {C2: 0, C2.at("s0"): 0}


async def test_missing_taken_and_in_use(driver: StorageDriver) -> None:
    with pytest.raises(NotFound):
        await driver.snapshot(C2.at("s0"))
    with pytest.raises(Conflict):
        await driver.clone(IMAGE, C1)
    await driver.mount(C1, None)
    with pytest.raises(Conflict):
        await driver.delete(C1)


async def test_small_files_have_a_place(driver: StorageDriver) -> None:
    async with driver.open_rootfs(C1) as rootfs:
        (rootfs / "file").write_text("x")
    assert (driver.data(C1) / "rootfs/file").is_file()
