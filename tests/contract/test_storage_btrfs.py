"""Driver `btrfs` against the contract, in a loop file and in a folder; and what is its own: nesting, sizes, streams."""

from __future__ import annotations

import os
import secrets
import struct
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from atoll.domain.errors import BadRequest, HostError
from atoll.drivers.storage import REGISTRY
from atoll.drivers.storage.btrfs import BtrfsDriver, subvolumes
from atoll.drivers.storage.conformance import KillingConformance, StorageConformance, common, content
from atoll.drivers.storage.conformance.common import C1, C2, C3, MakeDriver
from atoll.drivers.storage.contract import Pool, Stream
from atoll.host import btrfs, btrfs_disk, loop, mount, syscalls, trees, treesync

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("btrfs_works")]

MIB = 1 << 20
S0 = C1.at("s0")
FILESYSTEM_TREE = 5
"""The subvolume that all others are in."""


@pytest.fixture(scope="session")
def btrfs_works(filesystems: dict[str, Path]) -> None:
    """Skips where the kernel mounts none."""
    if "btrfs" not in filesystems:
        pytest.skip("no btrfs here")


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory: what a pool's many commits cost there is not the disk's time."""
    syscalls.mount("test", tmp_path, "tmpfs", 0, "size=512m")
    yield tmp_path
    mount.unmount_below(tmp_path)


def maker(folder: Path) -> MakeDriver:
    """Makes drivers for one new pool in a loop file."""
    pool = Pool("p", folder / secrets.token_hex(4) / "storage-pools" / "p", {"size": "1GiB"})
    pool.root.parent.mkdir(parents=True)
    return lambda: REGISTRY.create("btrfs", pool)


class TestConformance(StorageConformance):
    @pytest.fixture
    def make(self, memory: Path) -> MakeDriver:
        return maker(memory)


class TestKilling(KillingConformance):
    @pytest.fixture
    def make(self, memory: Path) -> MakeDriver:
        return maker(memory)


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[BtrfsDriver]:
    """A pool in a loop file with an image and an instance."""
    driver = maker(tmp_path)()
    assert isinstance(driver, BtrfsDriver)
    await driver.create_pool()
    await driver.open()
    await driver.create(common.IMAGE, content.fill_small)
    await driver.clone(common.IMAGE, C1)
    yield driver
    await driver.delete_pool()
    assert not mount.mounts_below(tmp_path) and not [name for name in common.paths(tmp_path) if name.endswith(".img")]


def nest(driver: BtrfsDriver, *paths: str) -> None:
    """Subvolumes in C1's root, each with a file."""
    for path in paths:
        place = driver.data(C1) / "rootfs" / path
        with btrfs.opened(place.parent) as folder:
            btrfs.create(folder, place.name)
        (place / "file").write_text(path)


def flag(path: Path, *, readonly: bool) -> None:
    """Set whether a subvolume is read-only."""
    with btrfs.opened(path) as subvolume:
        btrfs.set_readonly(subvolume, readonly=readonly)


def is_readonly(path: Path) -> bool:
    """Whether it is a subvolume, and a read-only one."""
    with btrfs.opened(path) as subvolume:
        return btrfs.is_subvolume(path) and btrfs.is_readonly(subvolume)


def subvolumes_left(driver: BtrfsDriver) -> set[str]:
    """Names of all subvolumes of the pool that are not volumes."""
    with btrfs.opened(driver.data(C1).parent.parent) as pool:
        found = [FILESYSTEM_TREE]
        names = set()
        for each in found:
            for child in btrfs.children(pool, each):
                found.append(child.id)
                names.add(child.name)
    return names


class TestNesting:
    """Subvolumes that a guest made in its root."""

    async def test_they_go_along_and_stay_read_only_or_not(self, driver: BtrfsDriver) -> None:
        nest(driver, "a", "a/b", "a/b/c")
        flag(driver.data(C1) / "rootfs/a/b", readonly=True)
        await driver.snapshot(S0)
        flag(driver.data(C1) / "rootfs/a/b", readonly=False)
        (driver.data(C1) / "rootfs/a/b/file").write_text("changed")
        await driver.clone(C1, C2)
        await driver.clone(S0, C3, snapshots=[])
        await driver.restore(S0)
        for volume, text, frozen in ((S0, "a/b", True), (C1, "a/b", True), (C2, "changed", False), (C3, "a/b", True)):
            rootfs = driver.data(volume) / "rootfs"
            assert (rootfs / "a/b/file").read_text() == text
            assert (rootfs / "a/b/c/file").read_text() == "a/b/c"
            flags = [is_readonly(rootfs / path) for path in ("a", "a/b", "a/b/c")]
            assert flags == [False, frozen, False]
        assert is_readonly(driver.data(S0)) and not is_readonly(driver.data(C1))
        (driver.data(C3) / "rootfs/a/b/c/file").write_text("mine")
        assert (driver.data(C1) / "rootfs/a/b/c/file").read_text() == "a/b/c"

    async def test_deletion_takes_them_whatever_their_path(self, driver: BtrfsDriver) -> None:
        nest(driver, "a", "etc/odd \n\\name", "a/b")
        flag(driver.data(C1) / "rootfs/a/b", readonly=True)
        deep = driver.data(C1) / "rootfs"
        held = os.open(deep, os.O_RDONLY)
        for _ in range(30):  # a path far beyond PATH_MAX
            os.mkdir("d" * 200, dir_fd=held)
            below = os.open("d" * 200, os.O_RDONLY, dir_fd=held)
            os.close(held)
            held = below
        btrfs.create(held, "hidden")
        os.close(held)
        await driver.delete(C1)
        assert not await common.exists(driver, C1)
        assert subvolumes_left(driver) == {common.IMAGE.name}

    async def test_too_many_in_each_other_are_refused_and_nothing_is_left(
        self, driver: BtrfsDriver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        nest(driver, "a", "a/b", "a/b/c")
        monkeypatch.setattr(subvolumes, "DEEPEST", 2)
        with pytest.raises(BadRequest, match="nested"):
            await driver.snapshot(S0)
        assert not await common.exists(driver, S0)
        assert list(driver.data(C1).parent.parent.joinpath(".aside").iterdir()) == []

    async def test_a_guest_that_moves_them_about_gains_nothing(self, driver: BtrfsDriver, tmp_path: Path) -> None:
        nest(driver, "a", "a/b")
        (tmp_path / "secret").write_text("secret of the host")
        rootfs = driver.data(C1) / "rootfs"
        stop = threading.Event()

        def swap() -> None:
            while not stop.is_set():
                (rootfs / "a").rename(rootfs / "moved")
                (rootfs / "a").symlink_to(tmp_path)
                (rootfs / "a").unlink()
                (rootfs / "moved").rename(rootfs / "a")

        worker = threading.Thread(target=swap)
        worker.start()
        try:
            for number in range(20):
                await driver.snapshot(C1.at(f"s{number}"))
        finally:
            stop.set()
            worker.join()
        assert (tmp_path / "secret").read_text() == "secret of the host"
        for number in range(20):
            found = {path.name for path in (driver.data(C1.at(f"s{number}")) / "rootfs").rglob("*")}
            assert "secret" not in found and "etc" in found

    async def test_a_kill_between_leaves_what_the_audit_makes_read_only(self, driver: BtrfsDriver) -> None:
        nest(driver, "a")
        await driver.snapshot(S0)
        flag(driver.data(S0), readonly=False)
        sentences = list(await driver.audit([common.IMAGE, C1, S0]))
        assert sentences == ["made container 'c1/s0' of project 'default' read-only again"]
        assert is_readonly(driver.data(S0))


class TestSizes:
    """Quotas."""

    async def test_a_size_limits_and_is_kept(self, driver: BtrfsDriver) -> None:
        assert await driver.usage([C1]) == {}
        await driver.set_size(C1, 8 * MIB)
        with pytest.raises(OSError, match="quota"):
            (driver.data(C1) / "rootfs/big").write_bytes(bytes(20 * MIB))
        await driver.snapshot(S0)
        await driver.restore(S0)
        with pytest.raises(OSError, match="quota"):
            (driver.data(C1) / "rootfs/big2").write_bytes(bytes(20 * MIB))
        used = await driver.usage([C1, S0, C2])
        assert used.keys() == {C1, S0} and 4 * MIB < used[C1] <= 8 * MIB
        await driver.set_size(C1, None)
        (driver.data(C1) / "rootfs/big2").write_bytes(bytes(20 * MIB))

    async def test_at_creation(self, driver: BtrfsDriver) -> None:
        await driver.create(common.CUSTOM, size=8 * MIB)
        with pytest.raises(OSError, match="quota"):
            (driver.data(common.CUSTOM) / "big").write_bytes(bytes(20 * MIB))

    async def test_no_size_counts_nothing(self, driver: BtrfsDriver) -> None:
        await driver.set_size(C1, None)
        await driver.create(common.CUSTOM, size=None)
        assert await driver.usage([C1]) == {}


class TestStreams:
    """Backups as streams."""

    async def test_there_and_back_with_changes_only(self, driver: BtrfsDriver, tmp_path: Path) -> None:
        (driver.data(C1) / "rootfs/bulk").write_bytes(os.urandom(4 * MIB))
        nest(driver, "a", "a/b-c")
        flag(driver.data(C1) / "rootfs/a/b-c", readonly=True)
        await driver.snapshot(S0)
        await common.write(driver, C1, "etc/later", "later")
        await driver.snapshot(C1.at("s1"))
        await common.write(driver, C1, "etc/last", "last")
        (driver.data(C1) / "rootfs/a/file").write_text("last")
        sent = [
            await driver.send(S0, tmp_path / "s0.bin", parent=None),
            await driver.send(C1.at("s1"), tmp_path / "s1.bin", parent=S0),
            await driver.send(C1, tmp_path / "container.bin", parent=C1.at("s1")),
        ]
        assert [stream.path for stream in sent[0]] == ["/", "/rootfs/a", "/rootfs/a/b-c"]
        assert [stream.readonly for stream in sent[2]] == [False, False, True]
        assert sent[2][2].file.name == "container_rootfs-a-b--c.bin"
        assert sent[0][0].file.stat().st_size > 4 * MIB > MIB > sent[1][0].file.stat().st_size
        whole = {volume: await common.tree(driver, volume) for volume in (S0, C1.at("s1"), C1)}
        for volume in whole:
            await driver.delete(volume)
        for volume, parent, streams in zip(whole, (None, S0, C1.at("s1")), sent, strict=True):
            await driver.receive(volume, streams[0].file, parent=parent, nested=streams[1:])
        for volume, before in whole.items():
            assert await common.tree(driver, volume) == before
            assert is_readonly(driver.data(volume)) == bool(volume.snapshot)
            assert not is_readonly(driver.data(volume) / "rootfs/a") and is_readonly(driver.data(volume) / "rootfs/a/b-c")
        assert list(await driver.audit([common.IMAGE, *whole])) == []
        assert list(driver.data(C1).parent.parent.joinpath(".aside").iterdir()) == []

    async def test_the_same_streams_for_two_volumes(self, driver: BtrfsDriver, tmp_path: Path) -> None:
        nest(driver, "a")
        flag(driver.data(C1) / "rootfs/a", readonly=True)
        await driver.snapshot(S0)
        await common.write(driver, C1, "etc/later", "later")
        first = await driver.send(S0, tmp_path / "s0.bin", parent=None)
        last = await driver.send(C1, tmp_path / "container.bin", parent=S0)
        for copy in (C2, C3):
            await driver.receive(copy.at("s0"), first[0].file, parent=None, nested=first[1:])
            await driver.receive(copy, last[0].file, parent=copy.at("s0"), nested=last[1:])
            assert await common.tree(driver, copy) == await common.tree(driver, C1)
            assert is_readonly(driver.data(copy.at("s0"))) and is_readonly(driver.data(copy.at("s0")) / "rootfs/a")

    @pytest.mark.parametrize("damage", ["empty", "cut", "noise"])
    async def test_what_is_no_stream_leaves_nothing(self, driver: BtrfsDriver, tmp_path: Path, damage: str) -> None:
        await driver.send(C1, tmp_path / "whole.bin", parent=None)
        whole = (tmp_path / "whole.bin").read_bytes()
        damaged = {"empty": b"", "cut": whole[: len(whole) // 2], "noise": whole[:40] + os.urandom(4000)}[damage]
        (tmp_path / "bad.bin").write_bytes(damaged)
        before = common.paths(driver.data(C1).parent.parent)
        with pytest.raises(BadRequest):
            await driver.receive(C2, tmp_path / "bad.bin", parent=None)
        assert common.paths(driver.data(C1).parent.parent) == before

    @pytest.mark.parametrize("path", ["/../../escape", "/rootfs/link/sub", "//", "/rootfs/etc/passwd", "/rootfs/none/sub"])
    async def test_a_hostile_place_of_a_nested_one(self, driver: BtrfsDriver, tmp_path: Path, path: str) -> None:
        (tmp_path / "outside").mkdir()
        (driver.data(C1) / "rootfs/link").symlink_to(tmp_path / "outside")
        first = (await driver.send(C1, tmp_path / "whole.bin", parent=None))[0]
        before = common.paths(driver.data(C1).parent.parent)
        with pytest.raises(BadRequest):
            await driver.receive(C2, first.file, parent=None, nested=[Stream(path, readonly=False, file=first.file)])
        assert common.paths(driver.data(C1).parent.parent) == before and list((tmp_path / "outside").iterdir()) == []

    async def test_a_stream_cannot_write_or_read_through_a_link(self, driver: BtrfsDriver, tmp_path: Path) -> None:
        """As a stranger would: a link to another volume in the root, a file written through it."""
        await driver.clone(common.IMAGE, C3)
        (driver.data(C3) / "rootfs/etc/passwd").write_text("secret of another instance")
        await driver.send(C1, tmp_path / "whole.bin", parent=None)
        stream = (tmp_path / "whole.bin").read_bytes()
        inside = f"/pool/containers/{C3.key}/rootfs"
        hostile = hostile_stream(stream, link=inside)
        (tmp_path / "hostile.bin").write_bytes(hostile)
        with pytest.raises(BadRequest, match=r"out/planted.*No such file"):
            await driver.receive(C2, tmp_path / "hostile.bin", parent=None)
        assert (driver.data(C3) / "rootfs/etc/passwd").read_text() == "secret of another instance"
        assert not (driver.data(C3) / "rootfs/planted").exists()


def hostile_stream(whole: bytes, *, link: str) -> bytes:
    """The head of a stream, then: a link, and a file made through it."""
    (length,) = struct.unpack_from("<I", whole, 17)
    head = whole[: 17 + 10 + length]
    commands = [
        send_command(7, {15: b"o257", 3: struct.pack("<Q", 257)}),
        send_command(8, {15: b"o258", 3: struct.pack("<Q", 258), 17: link.encode()}),
        send_command(9, {15: b"o258", 16: b"out"}),
        send_command(3, {15: b"out/planted", 3: struct.pack("<Q", 259)}),
        send_command(21, {}),
    ]
    return head + b"".join(commands)


def send_command(kind: int, attributes: dict[int, bytes]) -> bytes:
    """A command of btrfs' stream format, version 1, with its checksum (CRC-32C without the final inversions)."""
    body = b"".join(struct.pack("<HH", number, len(value)) + value for number, value in attributes.items())
    raw = struct.pack("<IHI", len(body), kind, 0) + body
    return struct.pack("<IHI", len(body), kind, crc32c(raw)) + body


def crc32c(data: bytes) -> int:
    """As btrfs computes it for streams."""
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


class TestPools:
    """Where a pool can be."""

    async def test_a_loop_file_grows_and_is_found_again(self, tmp_path: Path) -> None:
        pool = Pool("p", tmp_path / "pools/p", {"size": "512MiB"})
        decided = await BtrfsDriver(pool).create_pool()
        assert decided == {"source": str(tmp_path / "disks/p.img"), "size": "512MiB"}
        file = tmp_path / "disks/p.img"
        assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        assert file.stat().st_blocks * 512 < 64 * MIB
        driver = BtrfsDriver(Pool("p", pool.root, decided))
        await driver.open()
        kept = os.open(pool.root, os.O_RDONLY)  # as a machine that goes on running would
        mount.unmount(pool.root, lazy=True)
        await driver.open()
        assert os.fstat(kept).st_dev == pool.root.stat().st_dev, "a second loop device"
        os.close(kept)
        before = (await driver.resources()).space_total
        await driver.adjust({**decided, "size": "1GiB"})
        assert (await driver.resources()).space_total == before + 512 * MIB
        with pytest.raises(BadRequest, match="shrink"):
            await driver.adjust({**decided, "size": "600MiB"})
        await driver.adjust({**decided, "size": "1GiB", "btrfs.mount_options": "noatime"})
        assert [entry for entry in mount.mounts_below(pool.root) if "noatime" in entry.options]
        await driver.close()
        assert not mount.mounts_below(pool.root)
        await driver.open()
        await driver.delete_pool()
        assert not file.exists() and not pool.root.exists()

    async def test_options_that_the_kernel_refuses_leave_nothing(self, tmp_path: Path) -> None:
        pool = Pool("p", tmp_path / "pools/p", {"size": "512MiB", "btrfs.mount_options": "nonsense"})
        driver = BtrfsDriver(pool)
        await driver.create_pool()
        with pytest.raises(HostError):
            await driver.open()
        await driver.delete_pool()
        assert not (tmp_path / "disks/p.img").exists() and not pool.root.exists()

    async def test_a_block_device(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        os.truncate(tmp_path / "file", 512 * MIB)
        with loop.attached(tmp_path / "file") as device:
            pool = Pool("p", tmp_path / "pools/p", {"source": str(device)})
            decided = await BtrfsDriver(pool).create_pool()
            assert decided["volatile.initial_source"] == str(device) and uuid.UUID(decided["source"])
            with pytest.raises(HostError, match="existing filesystem"):
                await BtrfsDriver(Pool("q", tmp_path / "pools/q", {"source": str(device)})).create_pool()
            driver = BtrfsDriver(Pool("p", pool.root, decided))
            await driver.open()
            await driver.create(common.IMAGE, content.fill_small)
            await driver.close()
            await driver.open()
            assert await common.exists(driver, common.IMAGE)
            await driver.delete_pool()

    async def test_the_file_system_of_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        os.truncate(tmp_path / "file", 128 * MIB)
        with loop.attached(tmp_path / "file") as device:
            await btrfs_disk.make(device, "x")
            pool = Pool("p", tmp_path / "pools/p", {"source": str(device)})
            pool.root.mkdir(parents=True)
            await btrfs_disk.mount(device, pool.root, "")
            (pool.root / "home").mkdir()
            mount.unmount(pool.root)
            with pytest.raises(HostError, match="is not that of a storage pool"):
                await BtrfsDriver(pool).open()
            assert not mount.mounts_below(pool.root) and os.listdir(pool.root) == []

    @pytest.mark.parametrize("on", ["btrfs"], indirect=True)
    async def test_a_folder_on_btrfs(self, on: Path, tmp_path: Path) -> None:
        place = on / secrets.token_hex(4)
        pool = Pool("p", tmp_path / "pools/p", {"source": str(place)})
        driver = BtrfsDriver(pool)
        await driver.create_pool()
        await driver.open()
        await driver.create(common.IMAGE, content.fill_small)
        await driver.clone(common.IMAGE, C1)
        assert is_readonly(place / "images" / common.IMAGE.name)
        with pytest.raises(BadRequest, match="not empty"):
            await BtrfsDriver(Pool("q", tmp_path / "pools/q", {"source": str(place)})).create_pool()
        await driver.delete_pool()
        assert list(place.iterdir()) == [] and not pool.root.exists()

    @pytest.mark.parametrize("on", ["ext4"], indirect=True)
    @pytest.mark.parametrize("source", ["{on}/there", "{on}/missing", "relative", "/proc/x"])
    async def test_sources_that_are_none(self, on: Path, tmp_path: Path, source: str) -> None:
        (on / "there").mkdir(exist_ok=True)
        pool = Pool("p", tmp_path / "pools/p", {"source": source.format(on=on)})
        with pytest.raises((BadRequest, HostError)):
            await BtrfsDriver(pool).create_pool()
        assert not pool.root.exists()


@pytest.mark.parametrize("on", ["btrfs"], indirect=True)
class TestPlainCopies:
    """A guest's subvolumes are directories to who copies file by file: driver `dir`, and copies to other pools."""

    @pytest.mark.parametrize("how", ["still", "live", "sync"])
    async def test_they_go_along(self, on: Path, how: str) -> None:
        source, target = on / secrets.token_hex(4), on / secrets.token_hex(4)
        source.mkdir()
        target.mkdir()
        with btrfs.opened(source) as folder:
            btrfs.create(folder, "below")
        for place in (source, source / "below"):
            (place / "file").write_text(place.name)
            os.link(place / "file", place / "again")
        copy = {"still": trees.copy_still, "live": trees.copy_live, "sync": treesync.sync}[how]
        await copy(source, target)
        found = content.describe(target)
        assert {name: node.names for name, node in found.items() if node.names} == {
            "again": ("again", "file"),
            "file": ("again", "file"),
            "below/again": ("below/again", "below/file"),
            "below/file": ("below/again", "below/file"),
        }
        assert (target / "below/file").read_text() == "below"

    async def test_what_is_mounted_does_not(self, on: Path, tmp_path: Path) -> None:
        source, target = on / secrets.token_hex(4), on / secrets.token_hex(4)
        (source / "place").mkdir(parents=True)
        (tmp_path / "secret").write_text("x")
        mount.bind(tmp_path, source / "place")
        try:
            await trees.copy_live(source, target)
        finally:
            mount.unmount(source / "place")
        assert not list(target.rglob("secret"))
