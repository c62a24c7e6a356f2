"""What all of the conformance suite is about: a pool with an image and an instance of it, and what is done to them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from atoll.drivers.storage.conformance.content import Node, change, describe, fill_image
from atoll.drivers.storage.contract import StorageDriver, VolumeId, VolumeKind

IMAGE = VolumeId(VolumeKind.IMAGE, "default", "f" * 64)
C1 = VolumeId(VolumeKind.INSTANCE, "default", "c1")
C2 = VolumeId(VolumeKind.INSTANCE, "other", "c2")
C3 = VolumeId(VolumeKind.INSTANCE, "default", "c3")
CUSTOM = VolumeId(VolumeKind.CUSTOM, "default", "data")
COPY = VolumeId(VolumeKind.CUSTOM, "default", "copy")

MIB = 1 << 20

MakeDriver = Callable[[], StorageDriver]


async def tree(driver: StorageDriver, volume: VolumeId) -> dict[str, Node]:
    """What is in a volume that is not mounted."""
    async with driver.open_rootfs(volume) as rootfs:
        return describe(rootfs)


async def write(driver: StorageDriver, volume: VolumeId, name: str, text: str) -> None:
    """Write a file in an instance's root while it is stopped."""
    async with driver.open_rootfs(volume) as rootfs:
        (rootfs / name).write_text(text)


async def exists(driver: StorageDriver, volume: VolumeId) -> bool:
    """Whether the volume is there."""
    return driver.data(volume).is_dir()


def paths(root: Path) -> set[str]:
    """All that is below a folder."""
    return {str(path.relative_to(root)) for path in root.rglob("*")}


class Prepared:
    """What a part of the suite begins with. The fixture `make` comes from the driver's tests."""

    @pytest.fixture
    async def driver(self, make: MakeDriver) -> AsyncIterator[StorageDriver]:
        """A pool with an image and an instance c1 of it."""
        driver = make()
        await driver.create_pool()
        await driver.open()
        await driver.create(IMAGE, fill_image)
        await driver.clone(IMAGE, C1)
        yield driver
        for volume in (C1, C2, C3):
            await driver.unmount(volume)
        await driver.close()
        await driver.delete_pool()

    async def change(self, driver: StorageDriver, volume: VolumeId) -> None:
        """What a guest would do to an instance that is stopped."""
        async with driver.open_rootfs(volume) as rootfs:
            change(rootfs, 1000)
