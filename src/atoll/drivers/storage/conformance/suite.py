"""What every storage driver must do. See the package's docstring for its use."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atoll.domain.errors import Conflict, HostError, NotFound
from atoll.drivers.storage.conformance.common import C1, C2, C3, COPY, CUSTOM, IMAGE, MakeDriver, exists, paths, tree, write
from atoll.drivers.storage.conformance.content import MAP, OTHER_MAP, as_guest, change, fill_image
from atoll.drivers.storage.conformance.copies import CopyConformance
from atoll.drivers.storage.contract import StorageDriver, VolumeId, VolumeKind
from atoll.host import disk_image, syscalls
from atoll.host.disk_image import Measure


class StorageConformance(CopyConformance):
    """Subclass it in a driver's test module and give the fixture `make`."""

    async def test_a_clone_of_an_image_is_like_it(self, driver: StorageDriver) -> None:
        assert await tree(driver, C1) == await tree(driver, IMAGE)
        assert (driver.data(C1) / "metadata.yaml").read_text() == "architecture: x86_64\n"
        assert (driver.data(C1) / "templates/hosts.tpl").is_file()

    async def test_instances_do_not_see_each_other_s_changes(self, driver: StorageDriver) -> None:
        before = await tree(driver, IMAGE)
        await driver.clone(IMAGE, C2)
        await self.change(driver, C1)
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

    async def test_a_volume_goes_with_all_its_snapshots_in_one_call(self, driver: StorageDriver) -> None:
        before = paths(driver.data(C1).parent.parent)
        await driver.clone(IMAGE, C2)
        snapshots = [C2.at(f"s{number}") for number in range(5)]
        for snapshot in snapshots:
            await driver.snapshot(snapshot)
        await driver.delete(*snapshots, C2.at("never"), C2)
        assert not any([await exists(driver, volume) for volume in (*snapshots, C2)])
        await driver.close()
        await driver.open()
        assert paths(driver.data(C1).parent.parent) == before
        assert await exists(driver, C1)

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

    @pytest.mark.parametrize("step", range(1, 7))
    async def test_a_rename_without_space_changes_nothing(
        self, driver: StorageDriver, monkeypatch: pytest.MonkeyPatch, step: int
    ) -> None:
        """One of its steps fails; without an audit all is where it was."""
        await driver.snapshot(C1.at("s0"))
        before = await tree(driver, C1)
        counter = itertools.count(1)

        def failing(function: Callable[..., Any]) -> Callable[..., Any]:
            def called(*args: Any, **kwargs: Any) -> Any:
                if next(counter) == step:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return function(*args, **kwargs)

            return called

        for module, name in ((os, "fsync"), (syscalls, "renameat2")):
            monkeypatch.setattr(module, name, failing(getattr(module, name)))
        try:
            await driver.rename(C1, C2)
        except HostError:
            assert await tree(driver, C1) == await tree(driver, C1.at("s0")) == before
            assert not await exists(driver, C2) and not await exists(driver, C2.at("s0"))
        else:
            assert next(counter) <= step, "a failure was passed over"

    async def test_custom_volumes(self, driver: StorageDriver) -> None:
        async def fill(data: Path) -> None:
            (data / "a").write_text("1")
            os.chown(data / "a", 1000, 1000)
            disk_image.make(data, 4 << 20)  # all of it a hole, which no copy may fill

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
        for each in (CUSTOM, COPY, CUSTOM.at("s0")):
            assert disk_image.measure(driver.data(each)) == Measure(4 << 20, 0)
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
