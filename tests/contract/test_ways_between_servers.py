"""Volumes that go from one pool to another by streams, over a link in memory: what arrives is what was sent, and a peer that
lies, breaks off or sends rubbish leaves nothing."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from atoll.domain.errors import AtollError, BadRequest, Unavailable
from atoll.domain.migration_header import BtrfsFeatures, FsType, Header
from atoll.drivers.storage.btrfs import BtrfsDriver
from atoll.drivers.storage.btrfs.receiving import NAMES_ATTRIBUTE
from atoll.drivers.storage.conformance import common, content
from atoll.drivers.storage.conformance.common import C1, C2, IMAGE
from atoll.drivers.storage.contract import Pool, VolumeId, VolumeKind
from atoll.drivers.storage.overlay import OverlayDriver
from atoll.host import btrfs, mount
from atoll.host.btrfs_stream import Beginning
from atoll.services.instances.transfer import Place
from atoll.services.migration import files
from atoll.services.migration.by_layers import LayerTransport
from atoll.services.migration.by_subvolumes import BySubvolumes, SubvolumeTransport
from atoll.services.migration.transport import Arrival, Departure, Origin, State

pytestmark = pytest.mark.system

FINGERPRINT = "ab" * 32
BASE = VolumeId(VolumeKind.IMAGE, "default", FINGERPRINT)


@dataclass
class End:
    """One end of a link that never makes anybody wait. `tamper` may change what it sends, or raise."""

    out: asyncio.Queue[bytes | None]
    into: asyncio.Queue[bytes | None]
    tamper: Callable[[bytes], bytes] = lambda data: data
    gone: bool = False
    sent: int = 0
    words: list[bytes] = field(default_factory=list)

    async def send(self, data: bytes) -> None:
        self.sent += len(data)
        if data.startswith(b"{"):
            self.words.append(data)
        await self.out.put(self.tamper(data))

    async def send_end(self) -> None:
        await self.out.put(None)

    async def receive(self) -> bytes | None:
        data = await self.into.get()
        self.gone = data == b""
        return data or None

    async def close(self) -> None:
        await self.out.put(b"")


def link() -> tuple[End, End]:
    there: asyncio.Queue[bytes | None] = asyncio.Queue()
    back: asyncio.Queue[bytes | None] = asyncio.Queue()
    return End(there, back), End(back, there)


class NoRsync:
    """What a refused way goes on with; here it only says so."""

    def __init__(self) -> None:
        self.used: list[str] = []

    async def send(self, *_: Any) -> None:
        self.used.append("send")

    async def receive(self, *_: Any) -> None:
        self.used.append("receive")


def departure(driver: Any, *wanted: str, of: tuple[str, ...] | None = None) -> Departure:
    place = Place(driver, C1)
    return Departure(Origin("p", place, FINGERPRINT), place, of if of is not None else wanted, wanted)


def arrival(driver: Any, *names: str, kept: tuple[str, ...] | None = None) -> Arrival:
    return Arrival("p", Place(driver, C2), [State(name) for name in names], kept=kept)


async def both(transport: Any, leaving: Departure, coming: Arrival, ends: tuple[End, End] | None = None) -> tuple[End, End]:
    """Each side to its end; the first one's failure closes the link for the other."""
    source, target = ends or link()

    async def run(end: End, work: Any) -> None:
        try:
            await work
        except BaseException:
            await end.close()
            raise

    results = await asyncio.gather(
        run(source, transport.send(leaving, source, lambda _: lambda size: None)),
        run(target, transport.receive(coming, target, lambda _: lambda size: None)),
        return_exceptions=True,
    )
    failed = [each for each in results if isinstance(each, BaseException)]
    if failed:
        raise next((each for each in failed if not isinstance(each, Unavailable)), failed[0])
    return source, target


async def seen(driver: Any, volume: VolumeId) -> dict[str, tuple[int, int, int, int, str]]:
    """What a guest sees: mode, owner, links and content by path."""
    async with driver.open_rootfs(volume) as rootfs:
        found = {}
        for path in sorted(rootfs.rglob("*")):
            status = path.lstat()
            text = os.readlink(path) if path.is_symlink() else path.read_text() if path.is_file() else ""
            found[str(path.relative_to(rootfs))] = status.st_mode, status.st_uid, status.st_mtime_ns, status.st_nlink, text
        return found


async def change(driver: Any, *lines: Callable[[Path], object]) -> None:
    async with driver.open_rootfs(C1) as rootfs:
        for line in lines:
            line(rootfs)


# --- layers ------------------------------------------------------------------------------------------------------------


async def filled(data: Path) -> None:
    root = data / "rootfs"
    (root / "etc/deep").mkdir(parents=True)
    for name in ("etc/one", "etc/two", "etc/deep/file"):
        (root / name).write_text(name)
    (data / "metadata.yaml").write_text("{}")
    for path in root.rglob("*"):
        os.utime(path, ns=(0, 1_000_000_001))


@pytest.fixture
async def pools(tmp_path: Path) -> AsyncIterator[tuple[OverlayDriver, OverlayDriver]]:
    """Two pools with the same image; the first has an instance of it with a history."""
    made = []
    for name in ("a", "b"):
        driver = OverlayDriver(Pool("p", tmp_path / name / "p"))
        await driver.create_pool()
        await driver.open()
        await driver.create(BASE, filled)
        made.append(driver)
    source = made[0]
    await source.clone(BASE, C1)
    await change(source, lambda root: (root / "etc/one").unlink(), lambda root: (root / "new").write_text("new"))
    await source.snapshot(C1.at("s0"))
    await change(source, lambda root: os.link(root / "new", root / "link"), replace_folder)
    await source.snapshot(C1.at("s1"))
    await change(source, lambda root: (root / "last").write_text("last"), lambda root: os.chown(root / "last", 7, 8))
    yield source, made[1]
    for driver in made:
        await driver.delete_pool()
    assert not mount.mounts_below(tmp_path)


def replace_folder(root: Path) -> None:
    (root / "etc/deep/file").unlink()
    (root / "etc/deep").rmdir()
    (root / "etc/deep").mkdir()
    (root / "etc/deep/other").write_text("other")


def layers_of(driver: OverlayDriver) -> set[str]:
    return {path.name for path in (driver.data(C1).parents[1] / "layers").iterdir()}


def is_clean(driver: OverlayDriver, before: set[str]) -> bool:
    root = driver.data(C1).parents[1]
    return layers_of(driver) == before and not list((root / ".aside").iterdir()) and not list((root / "containers").iterdir())


class TestLayers:
    async def test_all_states_arrive_and_the_image_is_shared(self, pools: tuple[OverlayDriver, OverlayDriver]) -> None:
        source, target = pools
        ends = await both(
            LayerTransport(NoRsync(), FINGERPRINT),
            departure(source, "s0", "s1"),
            arrival(target, "s0", "s1"),  # type: ignore[arg-type]
        )
        for name in ("s0", "s1", ""):
            state = C1.at(name) if name else C1
            assert await seen(target, C2.at(name) if name else C2) == await seen(source, state)
        assert b'"has_base":true' in ends[1].words[0]
        assert len(layers_of(target)) == 4  # the image's, and three states'
        await target.restore(C2.at("s0"))
        assert await seen(target, C2) == await seen(source, C1.at("s0"))

    async def test_an_image_that_was_unpacked_otherwise_is_not_taken_for_it(
        self, pools: tuple[OverlayDriver, OverlayDriver]
    ) -> None:
        source, target = pools
        await target.delete(BASE)

        async def other(data: Path) -> None:
            await filled(data)
            (data / "rootfs/etc/two").write_text("owt")

        await target.create(BASE, other)
        ends = await both(LayerTransport(NoRsync(), FINGERPRINT), departure(source), arrival(target))  # type: ignore[arg-type]
        assert b'"has_base":false' in ends[1].words[0]
        assert await seen(target, C2) == await seen(source, C1)

    async def test_renamed_folders_of_the_image_go_otherwise(self, pools: tuple[OverlayDriver, OverlayDriver]) -> None:
        source, target = pools
        await change(source, lambda root: (root / "etc").rename(root / "cte"))
        otherwise = NoRsync()
        await both(LayerTransport(otherwise, FINGERPRINT), departure(source), arrival(target))  # type: ignore[arg-type]
        assert sorted(otherwise.used) == ["receive", "send"]

    @pytest.mark.parametrize(
        "lie",
        [
            {"layers": []},
            {"states": [{"snapshot": "../x", "stack": ["0"]}]},
            {"states": [{"snapshot": "", "stack": []}]},
            {"states": [{"snapshot": "", "stack": ["0", "0"]}]},
            {"states": [{"snapshot": "", "stack": [str(number) for number in range(200)]}],
             "layers": [{"name": str(number)} for number in range(200)]},
            {"layers": [{"name": "0", "opaque": ["Li4vLi4="]}]},
            {"layers": [{"name": "0", "opaque": ["bGluaw=="]}]},
            {"layers": -1},
            {"states": [{"snapshot": 7}]},
        ],
    )  # fmt: skip
    async def test_a_plan_that_lies(self, pools: tuple[OverlayDriver, OverlayDriver], lie: dict[str, Any]) -> None:
        _, target = pools
        before = layers_of(target)
        plan = {"layers": [{"name": "0"}], "states": [{"snapshot": "", "stack": ["0"]}], **lie}
        with pytest.raises(BadRequest):
            await told(target, plan, archive(("link", tarfile.SYMTYPE, "/etc")))
        assert is_clean(target, before)

    @pytest.mark.parametrize(
        "stream",
        [
            b"",
            b"garbage" * 1000,
            lambda: archive(("d", tarfile.CHRTYPE, ""), device=(1, 3)),
            lambda: archive(("d", tarfile.BLKTYPE, ""), device=(0, 0)),
            lambda: archive(("../../out", tarfile.REGTYPE, "")),
            lambda: archive(("a", tarfile.SYMTYPE, "/"), ("a/out", tarfile.REGTYPE, "")),
            lambda: archive(("a", tarfile.REGTYPE, ""))[:700],
        ],
    )
    async def test_a_stream_that_is_none(self, pools: tuple[OverlayDriver, OverlayDriver], stream: Any) -> None:
        _, target = pools
        before = layers_of(target)
        plan = {"layers": [{"name": "0"}], "states": [{"snapshot": "", "stack": ["0"]}]}
        with pytest.raises(AtollError):
            await told(target, plan, stream() if callable(stream) else stream)
        assert is_clean(target, before)
        assert not (target.data(C1).parents[1] / "out").exists()

    async def test_no_mark_of_a_stranger_is_set(self, pools: tuple[OverlayDriver, OverlayDriver]) -> None:
        _, target = pools
        marks = {"SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.trusted.overlay.opaque": "y"}
        plan = {
            "layers": [{"name": "0"}],
            "states": [{"snapshot": "", "stack": ["0"], "beside": {"../../x": "", "backup.yaml": "", "metadata.yaml": "e30="}}],
        }
        await told(target, plan, archive(("d", tarfile.DIRTYPE, ""), pax=marks))
        (made,) = layers_of(target) - {layer.name for layer in (target.data(C1).parents[1] / "layers").iterdir() if
                                       (layer / "fs/etc").exists()}  # fmt: skip
        tree = target.data(C1).parents[1] / "layers" / made / "fs"
        assert not [name for name in os.listxattr(tree / "d") if name.startswith("trusted.overlay")]
        assert sorted(path.name for path in target.data(C2).iterdir()) == ["layers", "metadata.yaml", "rootfs"]

    @pytest.mark.parametrize("silent", [False, True])
    async def test_a_peer_that_leaves_or_falls_silent(
        self, pools: tuple[OverlayDriver, OverlayDriver], silent: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, target = pools
        before = layers_of(target)
        monkeypatch.setattr(files, "IDLE_SECONDS", 0.3)
        plan = {"layers": [{"name": "0"}], "states": [{"snapshot": "", "stack": ["0"]}]}
        with pytest.raises(Unavailable):
            await told(target, plan, archive(("a", tarfile.REGTYPE, ""))[:600], ends=(not silent and b"") or "never")
        assert is_clean(target, before)


def archive(*members: tuple[str, bytes, str], device: tuple[int, int] = (0, 0), pax: dict[str, str] | None = None) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, leads in members:
            head = tarfile.TarInfo(name)
            head.type, head.linkname, head.pax_headers = kind, leads, pax or {}
            head.devmajor, head.devminor = device
            tar.addfile(head)
    return made.getvalue()


async def told(target: OverlayDriver, plan: dict[str, Any], stream: bytes, *, ends: Any = None) -> None:
    """A target that hears that plan and that stream. `ends`: how the stream ends, if not by its barrier."""
    peer, end = link()

    async def speak() -> None:
        await peer.send(msgspec.json.encode(plan))
        await peer.send_end()
        while await peer.receive() is not None:
            pass
        if stream:
            await peer.out.put(stream)
        if ends != "never":
            await peer.out.put(ends)

    speaking = asyncio.create_task(speak())
    try:
        transport = LayerTransport(NoRsync(), "")  # type: ignore[arg-type]
        await asyncio.wait_for(transport.receive(arrival(target), end, lambda _: lambda size: None), 20)
    finally:
        speaking.cancel()
        await asyncio.wait({speaking})


# --- subvolumes --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def volumes(tmp_path: Path, filesystems: dict[str, Path]) -> AsyncIterator[tuple[BtrfsDriver, BtrfsDriver]]:
    """Two pools on btrfs; the first has an instance with two snapshots, the second of which has a nested subvolume."""
    if "btrfs" not in filesystems:
        pytest.skip("no btrfs here")
    made = []
    for name in ("a", "b"):
        pool = Pool("p", tmp_path / name / "storage-pools/p", {"size": "1GiB"})
        pool.root.parent.mkdir(parents=True)
        driver = BtrfsDriver(pool)
        await driver.create_pool()
        await driver.open()
        made.append(driver)
    source = made[0]
    await source.create(IMAGE, content.fill_small)
    await source.clone(IMAGE, C1)
    await source.snapshot(C1.at("s0"))
    await change(source, lambda root: (root / "new").write_text("new"), nested)
    await source.snapshot(C1.at("s1"))
    await change(source, lambda root: (root / "last").write_text("last"))
    yield source, made[1]
    for driver in made:
        await driver.delete_pool()
    assert not mount.mounts_below(tmp_path)


def nested(root: Path) -> None:
    with btrfs.opened(root) as folder:
        btrfs.create(folder, "nested")
    (root / "nested/file").write_text("nested")


class TestSubvolumes:
    async def test_there_and_then_what_has_changed(self, volumes: tuple[BtrfsDriver, BtrfsDriver]) -> None:
        source, target = volumes
        first = await both(SubvolumeTransport(told=False), departure(source, "s0", "s1"), arrival(target, "s0", "s1"))
        for name in ("s0", "s1", ""):
            assert await seen(target, C2.at(name) if name else C2) == await seen(source, C1.at(name) if name else C1)
        await change(source, lambda root: (root / "nested/file").write_text("changed"))
        await source.snapshot(C1.at("s2"))
        refresh = departure(source, "s2", of=("s0", "s1", "s2"))
        second = await both(SubvolumeTransport(told=True), refresh, arrival(target, "s2", kept=("s0", "s1")))
        assert await seen(target, C2) == await seen(source, C1) == await seen(target, C2.at("s2"))
        assert second[0].sent < first[0].sent
        assert not list((target.data(C2).parents[1] / ".aside").iterdir())

    async def test_only_what_was_received_is_known_again(self, volumes: tuple[BtrfsDriver, BtrfsDriver]) -> None:
        source, target = volumes
        os.setxattr(source.data(C1), NAMES_ATTRIBUTE, b'{"/../../../elsewhere": [""]}')
        await both(SubvolumeTransport(told=False), departure(source, "s0"), arrival(target, "s0"))
        assert await target.origins([C2.at("s0")])
        assert NAMES_ATTRIBUTE not in os.listxattr(target.data(C2)), "came with the stream"
        await target.clone(C2, common.C3, snapshots=["s0"])
        assert await target.origins([common.C3.at("s0")]) is None
        assert await source.origins([C1.at("s0")]) is None

    async def test_changes_of_what_is_not_here(self, volumes: tuple[BtrfsDriver, BtrfsDriver]) -> None:
        source, target = volumes
        await both(SubvolumeTransport(told=False), departure(source, "s0"), arrival(target, "s0"))
        refresh = departure(source, of=("s0", "s1"))  # s1 is told to be there
        ends = link()
        ends[1].tamper = lambda data: b'{"subvolumes":[{"path":"/"}]}'
        with pytest.raises(BadRequest, match="not here"):
            await both(SubvolumeTransport(told=True), refresh, arrival(target, kept=("s0",)), ends)
        assert await target.origins([C2.at("s0")]) is None  # the next one is done file by file
        assert await seen(target, C2) == await seen(source, C1)

    async def test_no_streams_upon_others_snapshots_of_these_names(self, volumes: tuple[BtrfsDriver, BtrfsDriver]) -> None:
        """A refresh from another volume: changes of a snapshot are of no use where it only has the same name."""
        source, target = volumes
        await both(SubvolumeTransport(told=False), departure(source, "s0", "s1"), arrival(target, "s0", "s1"))
        way, header = BySubvolumes(), Header(snapshot_names=("s0", "s1", "s2"))
        offer = await way.offer(header, departure(source).origin)
        for kept, is_answered in ((("s0", "s1"), True), (("s0",), False), (("s1",), False), ((), False)):
            assert (await way.answer(offer, arrival(target, "s2", kept=kept)) is not None) == is_answered

    async def test_what_the_target_names_is_sent_whatever_it_has_records_of(
        self, volumes: tuple[BtrfsDriver, BtrfsDriver]
    ) -> None:
        """LXD waits for all that it has named: for ever, if less comes."""
        source, _ = volumes
        ours, theirs = link()
        sending = asyncio.create_task(
            SubvolumeTransport(told=True).send(departure(source, "s1", of=("s0", "s1")), ours, lambda _: lambda size: None)
        )
        while await theirs.receive() is not None:
            pass
        await theirs.send(b'{"subvolumes":[{"path":"/","snapshot":"s0"},{"path":"/","snapshot":"s1"},{"path":"/"}]}')
        await theirs.send_end()
        for parent in (False, True, True):
            beginning = Beginning()
            while not beginning.feed(await theirs.receive() or b""):
                pass
            assert (beginning.parent is not None) is parent
            while await theirs.receive() is not None:
                pass
        await sending

    async def test_which_refreshes_of_lxd_s_are_streams(self, volumes: tuple[BtrfsDriver, BtrfsDriver]) -> None:
        source, target = volumes
        way, old = BySubvolumes(), BtrfsFeatures(migration_header=True, header_subvolumes=True, header_subvolume_uuids=True)
        await both(SubvolumeTransport(told=False), departure(source, "s0", "s1"), arrival(target, "s0", "s1"))
        offer = Header(fs=FsType.BTRFS, btrfs_features=old, snapshot_names=("s0", "s1", "s2"))
        assert await way.answer(offer, arrival(target, "s2", kept=("s0", "s1")))
        earlier = arrival(target, "s0", "s2", kept=("s1",))
        assert await way.answer(offer, earlier) is None  # LXD would send s0 as a change of s2
        ours = await way.offer(Header(snapshot_names=offer.snapshot_names), departure(source).origin)
        assert await way.answer(ours, earlier)
        assert ours.btrfs_features is not None
        assert not ours.btrfs_features.header_subvolume_uuids  # LXD is not refreshed by streams: only once it could be

    @pytest.mark.parametrize("damage", ["garbage", "cut", "twice", "elsewhere"])
    async def test_a_stream_that_is_none(self, volumes: tuple[BtrfsDriver, BtrfsDriver], damage: str) -> None:
        source, target = volumes
        ends, beginnings = link(), []

        def tamper(data: bytes) -> bytes:
            if data.startswith(b"{"):
                return data.replace(b'"path":"/rootfs/nested"', b'"path":"/../x"') if damage == "elsewhere" else data
            if damage == "twice" and not beginnings:
                beginnings.append(data)
                return data + data[17:]
            return {"garbage": b"x" * 5000, "cut": data[: len(data) // 2]}.get(damage, data)

        ends[0].tamper = tamper
        with pytest.raises(AtollError):
            await both(SubvolumeTransport(told=False), departure(source, "s1"), arrival(target, "s1"), ends)
        root = target.data(C2).parents[1]
        assert not list((root / ".aside").iterdir()) and not list((root / "containers").iterdir())


def test_an_answer_to_btrfs_may_always_be_rsync() -> None:
    way = BySubvolumes()
    assert way.agreed(Header(fs=FsType.BTRFS), Header(fs=FsType.RSYNC)) is None
    assert way.agreed(Header(fs=FsType.RSYNC), Header(fs=FsType.BTRFS)) is None
    with pytest.raises(BadRequest):
        way.agreed(Header(fs=FsType.BTRFS), Header(fs=FsType.BTRFS))
