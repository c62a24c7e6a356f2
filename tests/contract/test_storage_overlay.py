"""Driver `overlay` against the contract, on the file systems that hosts have."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.domain.errors import Conflict, Unsupported
from atoll.drivers.storage import REGISTRY
from atoll.drivers.storage.conformance import KillingConformance, StorageConformance, common, content
from atoll.drivers.storage.conformance.common import MakeDriver
from atoll.drivers.storage.contract import Pool
from atoll.drivers.storage.overlay import OverlayDriver, probe
from atoll.drivers.storage.overlay import driver as driver_module
from atoll.host import mount

pytestmark = pytest.mark.system


def maker(folder: Path) -> MakeDriver:
    """Makes drivers for one new pool in that folder."""
    pool = Pool("p", folder / secrets.token_hex(4) / "p")
    return lambda: REGISTRY.create("overlay", pool)


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


class TestOverlay:
    """What is the overlay driver's own."""

    @pytest.fixture
    async def driver(self, tmp_path: Path) -> AsyncIterator[OverlayDriver]:
        """A pool with an image and an instance, reached through a symbolic link."""
        (tmp_path / "real").mkdir()
        (tmp_path / "state").symlink_to(tmp_path / "real")
        driver = OverlayDriver(Pool("p", tmp_path / "state/pools/p"))
        await driver.create_pool()
        await driver.open()
        await driver.create(common.IMAGE, content.fill_image)
        await driver.clone(common.IMAGE, common.C1)
        yield driver
        await driver.delete_pool()

    async def test_a_high_stack_is_flattened(self, driver: OverlayDriver, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(driver_module, "DEEPEST", 5)
        for number in range(12):
            await common.write(driver, common.C1, f"file{number}", "x")
            await driver.snapshot(common.C1.at(f"s{number}"))
            stack = (driver.data(common.C1) / "layers").read_text().split()
            assert len(stack) <= 6
        for number in range(12):
            found = await common.tree(driver, common.C1.at(f"s{number}"))
            assert {name for name in found if name.startswith("file")} == {f"file{older}" for older in range(number + 1)}
        image = await common.tree(driver, common.IMAGE)
        assert {name: node for name, node in found.items() if not name.startswith("file")} == image

    async def test_an_instance_with_marks_of_an_overlay_is_refused(self, driver: OverlayDriver) -> None:
        async def fill(data: Path) -> None:
            (data / "rootfs/var/engine").mkdir(parents=True)
            os.mknod(data / "rootfs/var/engine/gone", stat.S_IFCHR, 0)

        before = common.paths(driver.data(common.C1).parent.parent)
        with pytest.raises(Unsupported, match="var/engine/gone"):
            await driver.create(common.C2, fill)
        assert common.paths(driver.data(common.C1).parent.parent) == before

    async def test_mounts_of_unknown_volumes_are_undone_and_others_kept(self, driver: OverlayDriver) -> None:
        await driver.clone(common.IMAGE, common.C2)
        await driver.mount(common.C1, content.MAP)
        await driver.mount(common.C2, content.MAP)
        sentences = await driver.audit([common.IMAGE, common.C1])
        assert [sentence for sentence in sentences if "unmounted" in sentence]
        assert mount.is_overlay(driver.data(common.C1) / "rootfs") and not mount.is_overlay(driver.data(common.C2) / "rootfs")

    async def test_layers_are_kept_while_a_list_of_them_is_damaged(self, driver: OverlayDriver) -> None:
        (driver.data(common.C1) / "layers").write_text("../../etc\n")
        before = common.paths(driver.data(common.C1).parent.parent)
        sentences = await driver.audit([common.IMAGE, common.C1])
        assert len(sentences) == 1 and "damaged" in sentences[0]
        assert common.paths(driver.data(common.C1).parent.parent) == before

    async def test_a_machine_in_use_cannot_lose_its_volume(self, driver: OverlayDriver) -> None:
        await driver.snapshot(common.C1.at("s0"))
        await driver.mount(common.C1, content.MAP)
        for call in (driver.delete(common.C1), driver.rename(common.C1, common.C2), driver.restore(common.C1.at("s0"))):
            with pytest.raises(Conflict, match="in use"):
                await call

    @pytest.mark.parametrize("on", ["ext4", "xfs", "btrfs"], indirect=True)
    async def test_it_works_where_it_says_so(self, on: Path) -> None:
        assert await OverlayDriver.check(on / "not/yet/there") is None

    async def test_what_a_killed_look_left_goes_with_the_next(self, tmp_path: Path) -> None:
        left = tmp_path / ".atoll-probe-1"
        for name in ("source", "merged"):
            (left / name).mkdir(parents=True)
        mount.bind(left / "source", left / "merged")
        assert await OverlayDriver.check(tmp_path) is None
        assert not left.exists()
        assert mount.mounts_below(tmp_path) == []

    async def test_it_says_why_not(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        reason = await OverlayDriver.check(Path("/proc/here"))
        assert reason is not None and "/proc" in reason
        monkeypatch.setattr(probe, "kernel_version", lambda: (5, 15))
        assert "5.19 is the first" in (await OverlayDriver.check(tmp_path) or "")
