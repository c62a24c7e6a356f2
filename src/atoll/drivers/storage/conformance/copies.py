"""What every storage driver must do with snapshots and copies: the part of the suite that is about more than one state."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from atoll.domain.errors import Conflict, NotFound
from atoll.drivers.storage.conformance.common import C1, C2, C3, IMAGE, MIB, Prepared, exists, paths, tree, write
from atoll.drivers.storage.conformance.content import MAP, as_guest, change
from atoll.drivers.storage.contract import CopyingSnapshots, Refreshing, StorageDriver


class CopyConformance(Prepared):
    """See `StorageConformance`, which has these tests with all others."""

    @pytest.mark.parametrize("mounted", [False, True], ids=["stopped", "running"])
    async def test_snapshot_and_restore(self, driver: StorageDriver, *, mounted: bool) -> None:
        await self.change(driver, C1)
        before = await tree(driver, C1)
        if mounted:
            await driver.mount(C1, MAP)
        await driver.snapshot(C1.at("s0"))
        await driver.unmount(C1)
        assert await tree(driver, C1.at("s0")) == before == await tree(driver, C1)
        assert (driver.data(C1.at("s0")) / "metadata.yaml").is_file()
        await write(driver, C1, "etc/later", "later")
        assert await tree(driver, C1.at("s0")) == before
        (driver.data(C1) / "metadata.yaml").write_text("changed")
        await driver.restore(C1.at("s0"))
        assert await tree(driver, C1) == before
        assert (driver.data(C1) / "metadata.yaml").read_text() == "architecture: x86_64\n"
        await write(driver, C1, "etc/later", "later")
        assert await tree(driver, C1.at("s0")) == before

    @pytest.mark.parametrize("mounted", [False, True], ids=["stopped", "running"])
    async def test_holes_stay_holes(self, driver: StorageDriver, *, mounted: bool) -> None:
        async with driver.open_rootfs(C1) as rootfs:
            (rootfs / "var/sparse").chmod(0o600)  # in an overlay a change of it is a copy
        if mounted:
            await driver.mount(C1, MAP)
        await driver.snapshot(C1.at("s0"))
        await driver.clone(C1, C2)
        for volume in (C1.at("s0"), C2):
            async with driver.open_rootfs(volume) as rootfs:
                found = (rootfs / "var/sparse").stat()
                assert found.st_blocks * 512 < MIB < found.st_size

    async def test_a_running_instance_stays_undisturbed(self, driver: StorageDriver) -> None:
        mounted = await driver.mount(C1, MAP)
        kept = os.open(mounted.rootfs / "var/log", os.O_RDONLY)  # what a running machine has open
        try:
            await driver.snapshot(C1.at("s0"))
            await driver.clone(C1, C2)
            await as_guest(mounted, MAP, change)
            assert os.listdir(kept) == []
        finally:
            os.close(kept)
        assert (mounted.rootfs / "home/bob/note").read_text() == "mine"
        assert await tree(driver, C1.at("s0")) == await tree(driver, IMAGE) == await tree(driver, C2)
        if mounted.shifted:
            with pytest.raises(Conflict):
                async with driver.open_rootfs(C1):
                    pass

    async def test_a_snapshot_of_one_moment(self, driver: StorageDriver) -> None:
        if not isinstance(driver, CopyingSnapshots):
            pytest.skip("its snapshots are of one moment by themselves")
        mounted = await driver.mount(C1, MAP)
        await as_guest(mounted, MAP, change)
        pauses = 0

        def write_last(root: Path, _uid: int) -> None:
            (root / "etc/new").write_text("the last before the pause")

        @asynccontextmanager
        async def pause() -> AsyncIterator[None]:
            nonlocal pauses
            pauses += 1
            await as_guest(mounted, MAP, write_last)
            yield

        await driver.snapshot_paused(C1.at("s0"), pause)
        assert pauses == 1
        await driver.unmount(C1)
        assert await tree(driver, C1.at("s0")) == await tree(driver, C1)

    async def test_a_running_guest_cannot_lead_a_copy_out(self, driver: StorageDriver, tmp_path: Path) -> None:
        (tmp_path / "secret").mkdir()
        (tmp_path / "secret/file").write_text("secret of the host")
        mounted = await driver.mount(C1, MAP)

        def plant(root: Path, _uid: int) -> None:
            (root / "swap").mkdir()
            for number in range(50):
                (root / f"swap/{number}").mkdir()
                (root / f"swap/{number}/file").write_text("guest")

        def swap(root: Path, _uid: int) -> None:
            for number in range(50):
                (root / f"swap/{number}").rename(root / f"swap/{number}-gone")
                os.symlink(tmp_path / "secret", root / f"swap/{number}")

        await as_guest(mounted, MAP, plant)
        await asyncio.gather(driver.snapshot(C1.at("s0")), as_guest(mounted, MAP, swap))
        async with driver.open_rootfs(C1.at("s0")) as rootfs:
            texts = {path.read_text() for path in rootfs.glob("swap/*/file") if not path.parent.is_symlink()}
        assert texts <= {"guest"}

    @pytest.mark.parametrize("mounted", [False, True], ids=["stopped", "running"])
    async def test_a_clone_with_snapshots(self, driver: StorageDriver, *, mounted: bool) -> None:
        await driver.snapshot(C1.at("s0"))
        await self.change(driver, C1)
        for name in ("s1", "s2"):
            await driver.snapshot(C1.at(name))
        await write(driver, C1, "etc/last", "last")
        names = ("s0", "s2")
        whole = {name: await tree(driver, C1.at(name) if name else C1) for name in ("", *names)}
        if mounted:
            await driver.mount(C1, MAP)
        await driver.clone(C1, C2, snapshots=names)
        await driver.unmount(C1)
        assert {name: await tree(driver, C2.at(name) if name else C2) for name in ("", *names)} == whole
        assert not await exists(driver, C2.at("s1"))
        assert (driver.data(C2.at("s0")) / "metadata.yaml").is_file()
        for name in ("s0", "s1", "s2"):
            await driver.delete(C1.at(name))
        await driver.delete(C1)
        await write(driver, C2, "etc/last", "changed")
        await driver.restore(C2.at("s0"))
        assert await tree(driver, C2) == whole["s0"] == await tree(driver, C2.at("s0"))
        assert list(await driver.audit([IMAGE, C2, C2.at("s0"), C2.at("s2")])) == []

    async def test_a_clone_with_a_snapshot_that_is_missing_leaves_nothing(self, driver: StorageDriver) -> None:
        pool = driver.data(C1).parent.parent
        await driver.snapshot(C1.at("s0"))
        before = paths(pool)
        with pytest.raises(NotFound):
            await driver.clone(C1, C2, snapshots=["s0", "gone"])
        with pytest.raises(NotFound):
            await driver.clone(C1.at("gone"), C2)
        await driver.close()
        await driver.open()
        assert paths(pool) == before

    @pytest.mark.parametrize("mounted", [False, True], ids=["stopped", "running"])
    async def test_refresh_where_the_driver_can(self, driver: StorageDriver, *, mounted: bool) -> None:
        if not isinstance(driver, Refreshing):
            pytest.skip("the driver leaves it to the service")
        await driver.snapshot(C1.at("s0"))
        await driver.clone(C1, C2, snapshots=["s0"])
        await write(driver, C2, "etc/own", "of the copy")
        await driver.snapshot(C2.at("own"))
        await self.change(driver, C1)
        await driver.snapshot(C1.at("s1"))
        await write(driver, C1, "etc/last", "last")
        whole = {name: await tree(driver, C1.at(name) if name else C1) for name in ("", "s0", "s1")}
        own = await tree(driver, C2.at("own"))
        if mounted:
            await driver.mount(C1, MAP)
        await driver.refresh(C1, C2, snapshots=["s1"])
        await driver.unmount(C1)
        assert {name: await tree(driver, C2.at(name) if name else C2) for name in ("", "s0", "s1")} == whole
        assert await tree(driver, C2.at("own")) == own
        await driver.mount(C2, MAP)
        with pytest.raises(Conflict):
            await driver.refresh(C1, C2)
        await driver.unmount(C2)
        known = [IMAGE, C1, C1.at("s0"), C1.at("s1"), C2, *(C2.at(name) for name in ("s0", "own", "s1"))]
        assert list(await driver.audit(known)) == []

    async def test_clone_of_a_snapshot_of_a_clone(self, driver: StorageDriver) -> None:
        await self.change(driver, C1)
        await driver.snapshot(C1.at("s0"))
        await driver.clone(C1.at("s0"), C2)
        assert await tree(driver, C2) == await tree(driver, C1)
        await write(driver, C2, "etc/second", "2")
        await driver.snapshot(C2.at("s0"))
        await driver.clone(C2, C3)
        await write(driver, C3, "etc/third", "3")
        found = await tree(driver, C3)
        assert "etc/second" in found and "etc/third" in found and "etc/doomed" not in found
        assert await tree(driver, C2) == await tree(driver, C2.at("s0"))
