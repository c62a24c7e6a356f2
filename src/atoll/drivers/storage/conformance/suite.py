"""What every storage driver must do. See the package's docstring for its use."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from atoll.domain.errors import Conflict, NotFound
from atoll.drivers.storage.conformance.content import MAP, OTHER_MAP, Node, as_guest, change, describe, fill_image
from atoll.drivers.storage.contract import CopyingSnapshots, Refreshing, StorageDriver, VolumeId, VolumeKind

IMAGE = VolumeId(VolumeKind.IMAGE, "default", "f" * 64)
C1 = VolumeId(VolumeKind.INSTANCE, "default", "c1")
C2 = VolumeId(VolumeKind.INSTANCE, "other", "c2")
C3 = VolumeId(VolumeKind.INSTANCE, "default", "c3")
CUSTOM = VolumeId(VolumeKind.CUSTOM, "default", "data")
COPY = VolumeId(VolumeKind.CUSTOM, "default", "copy")

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


class StorageConformance:
    """Subclass it in a driver's test module and give the fixture `make`."""

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

    async def test_a_clone_of_an_image_is_like_it(self, driver: StorageDriver) -> None:
        assert await tree(driver, C1) == await tree(driver, IMAGE)
        assert (driver.data(C1) / "metadata.yaml").read_text() == "architecture: x86_64\n"
        assert (driver.data(C1) / "templates/hosts.tpl").is_file()

    async def test_instances_do_not_see_each_other_s_changes(self, driver: StorageDriver) -> None:
        before = await tree(driver, IMAGE)
        await driver.clone(IMAGE, C2)
        await self._change(driver, C1)
        assert await tree(driver, IMAGE) == before == await tree(driver, C2)
        assert await tree(driver, C1) != before

    async def test_a_mount_shows_shifted_ids_and_keeps_plain_ones(self, driver: StorageDriver) -> None:
        mounted = await driver.mount(C1, MAP)
        assert mounted.shifted == driver.capabilities.idmapped
        shift = MAP.root if mounted.shifted else 0
        assert mounted.rootfs.stat().st_uid == shift
        assert (mounted.rootfs / "home/alice/note").stat().st_uid == 1000 + shift
        assert (mounted.rootfs / "usr/bin/su").stat().st_mode & 0o7777 == 0o4755
        await as_guest(mounted, MAP, change)
        assert (mounted.rootfs / "home/bob/note").read_text() == "mine"
        await driver.unmount(C1)
        after = await tree(driver, C1)
        assert after["etc/new"].uid == 1000 and after["etc/new"].names == ("etc/new", "etc/new-too")
        assert "etc/doomed" not in after and "var/lib/old/one" not in after and "home/alice" not in after

    async def test_the_same_files_under_another_map(self, driver: StorageDriver) -> None:
        await as_guest(await driver.mount(C1, MAP), MAP, change)
        await driver.unmount(C1)
        mounted = await driver.mount(C1, OTHER_MAP)
        shift = OTHER_MAP.root if mounted.shifted else 0
        assert (mounted.rootfs / "etc/new").stat().st_uid == 1000 + shift
        await driver.unmount(C1)
        assert (await driver.mount(C1, None)).rootfs.joinpath("etc/new").stat().st_uid == 1000

    async def test_mount_is_idempotent_and_survives_the_daemon(self, driver: StorageDriver, make: MakeDriver) -> None:
        first = await driver.mount(C1, MAP)
        device = first.rootfs.stat().st_dev
        restarted = make()
        await restarted.open()
        assert list(await restarted.audit([IMAGE, C1])) == []
        assert await restarted.mount(C1, MAP) == first == await driver.mount(C1, MAP)
        assert first.rootfs.stat().st_dev == device, "mounted anew below a running machine"
        await restarted.unmount(C1)
        await restarted.unmount(C1)

    async def test_nobody_else_reaches_a_volume(self, driver: StorageDriver) -> None:
        await driver.create(CUSTOM)
        pool = driver.data(C1).parent.parent
        modes = {name: (pool / name).stat().st_mode & 0o777 for name in ("", "containers", "images", "custom")}
        assert modes == {"": 0o711, "containers": 0o711, "images": 0o700, "custom": 0o700}
        assert driver.data(C1).stat().st_mode & 0o777 == 0o100
        await driver.mount(C1, MAP)
        found = driver.data(C1).stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (MAP.root, 0, 0o100)
        await driver.unmount(C1)
        assert (driver.data(C1).stat().st_uid, driver.data(C1).stat().st_mode & 0o777) == (0, 0o100)

    @pytest.mark.parametrize("mounted", [False, True], ids=["stopped", "running"])
    async def test_snapshot_and_restore(self, driver: StorageDriver, *, mounted: bool) -> None:
        await self._change(driver, C1)
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
        await self._change(driver, C1)
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
        await self._change(driver, C1)
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
        await self._change(driver, C1)
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

    async def test_deletion_in_any_order_leaves_the_rest_whole_and_nothing_behind(self, driver: StorageDriver) -> None:
        pool = driver.data(C1).parent.parent
        await driver.delete(C1)
        await driver.delete(IMAGE)
        empty = paths(pool)
        for order in itertools.permutations(["image", "c1", "snapshot", "c2"]):
            if order.index("c1") < order.index("snapshot"):
                continue  # the service removes the snapshots first
            await driver.create(IMAGE, fill_image)
            await driver.clone(IMAGE, C1)
            await write(driver, C1, "etc/first", "1")
            await driver.snapshot(C1.at("s0"))
            await driver.clone(C1.at("s0"), C2)
            left = {"image": IMAGE, "c1": C1, "snapshot": C1.at("s0"), "c2": C2}
            whole = {name: await tree(driver, volume) for name, volume in left.items()}
            for name in order:
                await driver.delete(left.pop(name))
                assert {other: await tree(driver, volume) for other, volume in left.items()} == {n: whole[n] for n in left}
            await driver.close()
            await driver.open()
            assert paths(pool) == empty, order

    async def test_deleting_what_is_not_there_is_fine(self, driver: StorageDriver) -> None:
        await driver.delete(C2)
        await driver.delete(C2.at("s0"))
        await driver.delete(CUSTOM)
        await driver.unmount(C2)

    async def test_rename_takes_the_snapshots_along(self, driver: StorageDriver) -> None:
        await driver.snapshot(C1.at("s0"))
        await driver.snapshot(C1.at("s1"))
        before = await tree(driver, C1)
        await driver.rename(C1, C2)
        await driver.rename(C2.at("s1"), C2.at("renamed"))
        assert not await exists(driver, C1) and not await exists(driver, C1.at("s0")) and not await exists(driver, C2.at("s1"))
        for volume in (C2, C2.at("s0"), C2.at("renamed")):
            assert await tree(driver, volume) == before
        await driver.restore(C2.at("s0"))
        assert list(await driver.audit([IMAGE, C2, C2.at("s0"), C2.at("renamed")])) == []

    async def test_custom_volumes(self, driver: StorageDriver) -> None:
        async def fill(data: Path) -> None:
            (data / "a").write_text("1")
            os.chown(data / "a", 1000, 1000)

        await driver.create(CUSTOM, fill)
        before = await tree(driver, CUSTOM)
        mounted = await driver.mount(CUSTOM, MAP)
        assert (mounted.rootfs, mounted.shifted) == (driver.data(CUSTOM), False)
        await driver.snapshot(CUSTOM.at("s0"))
        (driver.data(CUSTOM) / "b").write_text("2")
        await driver.clone(CUSTOM, COPY)
        assert await tree(driver, COPY) == await tree(driver, CUSTOM)
        await driver.restore(CUSTOM.at("s0"))
        assert await tree(driver, CUSTOM) == before == await tree(driver, CUSTOM.at("s0"))
        await driver.rename(COPY, VolumeId(VolumeKind.CUSTOM, "other", "copy"))
        await driver.delete(CUSTOM.at("s0"))
        await driver.delete(CUSTOM)
        assert not await exists(driver, CUSTOM)

    async def test_what_is_missing_or_taken(self, driver: StorageDriver) -> None:
        for call in (driver.clone(C2, C3), driver.clone(C2.at("s0"), C3), driver.snapshot(C2.at("s0")), driver.mount(C2, MAP)):
            with pytest.raises(NotFound):
                await call
        with pytest.raises(NotFound):
            await driver.rename(C2, C3)
        with pytest.raises(NotFound):
            async with driver.open_rootfs(C2):
                pass
        await driver.clone(IMAGE, C2)
        await driver.snapshot(C1.at("s0"))
        for call in (driver.clone(IMAGE, C2), driver.rename(C1, C2), driver.create(C2), driver.snapshot(C1.at("s0"))):
            with pytest.raises(Conflict):
                await call

    async def test_a_failed_fill_leaves_nothing(self, driver: StorageDriver) -> None:
        async def fail(data: Path) -> None:
            (data / "rootfs/file").write_text("x")
            raise NotFound("the stream ended")

        pool = driver.data(C1).parent.parent
        before = paths(pool)
        with pytest.raises(NotFound, match="the stream ended"):
            await driver.create(C2, fail)
        assert paths(pool) == before
        await driver.create(C2, fill_image)
        assert (await tree(driver, C2)).keys() == (await tree(driver, IMAGE)).keys()

    async def test_an_empty_instance(self, driver: StorageDriver) -> None:
        await driver.create(C2)
        mounted = await driver.mount(C2, MAP)
        assert list(mounted.rootfs.iterdir()) == []
        await driver.unmount(C2)
        await write(driver, C2, "file", "x")
        assert "file" in await tree(driver, C2)

    async def test_twenty_clones_at_once(self, driver: StorageDriver) -> None:
        clones = [VolumeId(VolumeKind.INSTANCE, "default", f"n{number}") for number in range(20)]
        await asyncio.gather(*(driver.clone(IMAGE, clone) for clone in clones))
        whole = await tree(driver, IMAGE)
        for clone in clones:
            assert await tree(driver, clone) == whole
        mounts = await asyncio.gather(*(driver.mount(clone, MAP) for clone in clones))
        assert len({mounted.rootfs for mounted in mounts}) == 20
        await asyncio.gather(*(driver.unmount(clone) for clone in clones))
        await asyncio.gather(*(driver.delete(clone) for clone in clones), driver.delete(C1), driver.delete(IMAGE))

    async def test_an_image_is_made_once(self, driver: StorageDriver) -> None:
        image, calls = VolumeId(VolumeKind.IMAGE, "default", "a" * 64), 0

        async def fill(data: Path) -> None:
            nonlocal calls
            calls += 1
            await asyncio.sleep(0.01)
            await fill_image(data)

        results = await asyncio.gather(*(driver.create(image, fill) for _ in range(5)), return_exceptions=True)
        assert calls == 1
        assert sorted(type(result).__name__ for result in results) == ["Conflict"] * 4 + ["NoneType"]

    async def test_the_host_s_work_on_a_stopped_instance(self, driver: StorageDriver) -> None:
        async with driver.open_rootfs(C1) as one, driver.open_rootfs(C1) as other:
            assert one == other
            change(one, 1000)
        mounted = await driver.mount(C1, MAP)
        shift = MAP.root if mounted.shifted else 0
        assert (mounted.rootfs / "etc/new").stat().st_uid == 1000 + shift

    async def test_many_at_once_work_on_one_instance(self, driver: StorageDriver) -> None:
        async def work(number: int) -> None:
            for turn in range(5):
                await write(driver, C1, f"file-{number}-{turn}", "x")

        await asyncio.gather(*(work(number) for number in range(10)))
        assert sum(name.startswith("file-") for name in await tree(driver, C1)) == 50
        await driver.mount(C1, MAP)

    async def test_devices_in_an_image_are_dead_for_an_unprivileged_guest(self, driver: StorageDriver) -> None:
        async def fill(data: Path) -> None:
            os.mknod(data / "rootfs/null", 0o020666, os.makedev(1, 3))

        await driver.create(C2, fill)
        mounted = await driver.mount(C2, MAP)
        if mounted.shifted:  # else it is for the instance driver to see to
            with pytest.raises(PermissionError):
                os.close(os.open(mounted.rootfs / "null", os.O_RDONLY))

    async def test_the_audit_reports_what_is_unknown_or_missing_and_keeps_it(self, driver: StorageDriver) -> None:
        sentences = list(await driver.audit([IMAGE, C2]))
        assert len(sentences) == 2
        assert any("c1" in sentence and "not in the database" in sentence for sentence in sentences)
        assert any("c2" in sentence and "not on disk" in sentence for sentence in sentences)
        assert await tree(driver, C1) == await tree(driver, IMAGE)

    async def test_the_inventory_is_what_is_there(self, driver: StorageDriver) -> None:
        await driver.snapshot(C1.at("s0"))
        await driver.create(CUSTOM)
        assert set(await driver.inventory()) == {IMAGE, C1, C1.at("s0"), CUSTOM}

    async def test_resources(self, driver: StorageDriver) -> None:
        resources = await driver.resources()
        assert 0 < resources.space_used <= resources.space_total

    async def _change(self, driver: StorageDriver, volume: VolumeId) -> None:
        async with driver.open_rootfs(volume) as rootfs:
            change(rootfs, 1000)
