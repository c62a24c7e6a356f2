"""Driver `dir` against the contract, on the file systems that hosts have."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from atoll.drivers.storage import REGISTRY
from atoll.drivers.storage.conformance import KillingConformance, StorageConformance
from atoll.drivers.storage.conformance.common import C1, C2, MIB, MakeDriver
from atoll.drivers.storage.conformance.content import MAP
from atoll.drivers.storage.contract import Pool
from atoll.host import disk

pytestmark = pytest.mark.system


def maker(folder: Path) -> MakeDriver:
    """Makes drivers for one new pool in that folder."""
    pool = Pool("p", folder / secrets.token_hex(4) / "p")
    return lambda: REGISTRY.create("dir", pool)


@pytest.mark.parametrize("on", ["ext4", "btrfs"], indirect=True)  # xfs: see test_storage_sizes
class TestConformance(StorageConformance):
    @pytest.fixture
    def make(self, on: Path) -> MakeDriver:
        return maker(on)


@pytest.mark.parametrize("on", ["ext4"], indirect=True)
class TestKilling(KillingConformance):
    @pytest.fixture
    def make(self, on: Path) -> MakeDriver:
        return maker(on)


@pytest.mark.parametrize("on", ["xfs", "btrfs"], indirect=True)
async def test_copies_share_blocks_where_the_file_system_can(on: Path) -> None:
    driver = maker(on)()
    await driver.create_pool()
    await driver.open()
    await driver.create(C1)
    async with driver.open_rootfs(C1) as rootfs:
        (rootfs / "large").write_bytes(os.urandom(32 * MIB))
    before = _used(on)
    await driver.clone(C1, C2)  # as a guest may be changing it
    await driver.snapshot(C2.at("s0"))
    await driver.restore(C2.at("s0"))  # of one that nobody changes
    await driver.mount(C2, MAP)
    await driver.snapshot(C2.at("s1"))
    await driver.unmount(C2)
    assert _used(on) - before < 8 * MIB
    await driver.delete_pool()


def _used(on: Path) -> int:
    disk.flush_filesystem(on)
    return disk.space(on).used
