"""Trees between two real rsyncs in their jails, over a link in memory; and what a hostile sender gets done: nothing."""

from __future__ import annotations

import asyncio
import os
import shutil
import struct
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from atoll.domain.errors import BadRequest, HostError, Unavailable
from atoll.domain.idmap import IdMap, IdRange
from atoll.host import rsync
from atoll.host.archive_sandbox import Bind
from atoll.host.rsync import Options, Tree
from atoll.services.migration import staging

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("rsync") is None, reason="needs rsync"),
]

SHIFT = IdMap((IdRange(0, 100_000, 65536),))


class Link:
    """One end of a link; both have the same messages, each its own direction."""

    def __init__(self) -> None:
        self._arriving: asyncio.Queue[bytes | None] = asyncio.Queue(16)
        self.peer = self
        self.gone = False

    async def send(self, data: bytes) -> None:
        await self.peer._arriving.put(data)

    async def send_end(self) -> None:
        await self.peer._arriving.put(None)

    async def receive(self) -> bytes | None:
        return await self._arriving.get()


def link() -> tuple[Link, Link]:
    first, second = Link(), Link()
    first.peer, second.peer = second, first
    return first, second


def tree(folder: Path) -> Tree:
    (folder / "beside" / "rootfs").mkdir(parents=True)
    (folder / "root").mkdir()
    return Tree(folder / "beside", folder / "root")


def looks(root: Path) -> Mapping[str, tuple[int, int, int, int]]:
    """Of each entry: mode, owner, group, names."""
    found = {}
    for path in sorted(root.rglob("*")):
        about = path.lstat()
        found[str(path.relative_to(root))] = (about.st_mode, about.st_uid, about.st_gid, about.st_nlink)
    return found


def plant(root: Path, first: int) -> None:
    """Files of many kinds and owners, as a host keeps them whose ids of the instance begin with `first`."""
    (root / "etc").mkdir()
    for number in range(3):
        (root / f"file{number}").write_bytes(os.urandom(5000))
        os.chown(root / f"file{number}", first + number, first + 10 * number)
    os.chmod(root / "file1", 0o4755)
    os.link(root / "file1", root / "again")
    os.mkfifo(root / "fifo")
    os.symlink("/etc/shadow", root / "link")
    os.mknod(root / "whiteout", 0o020000, 0)
    os.setxattr(root / "file2", "user.note", b"x")
    os.setxattr(root / "file2", "user.overlay.opaque", b"y")
    for name in (".", "etc", "fifo", "link", "whiteout"):
        os.chown(root / name, first, first, follow_symlinks=False)


async def carry(source: Tree, target: Tree, options: Options, shifted: IdMap | None = None) -> int:
    """Bytes that went."""
    counted: list[int] = []
    near, far = link()
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(rsync.send(source, near, options, counted.append))
        group.create_task(rsync.receive(target, far, options, lambda _: None, shifted=shifted))
    return sum(counted)


async def test_a_tree_arrives_whole_and_what_is_the_same_is_not_sent_again(tmp_path: Path) -> None:
    source, target = tree(tmp_path / "a"), tree(tmp_path / "b")
    plant(source.rootfs, 0)
    (source.folder / "metadata.yaml").write_text("architecture: x86_64\n")
    sent = await carry(source, target, Options(whole=True))
    assert looks(target.rootfs) == looks(source.rootfs)
    assert os.listxattr(target.rootfs / "file2") == ["user.note"]
    assert (target.folder / "metadata.yaml").read_text() == "architecture: x86_64\n"
    (source.rootfs / "file0").unlink()
    assert await carry(source, target, Options(whole=True)) < sent / 3
    assert looks(target.rootfs) == looks(source.rootfs)


async def test_what_was_changed_within_a_second_arrives(tmp_path: Path) -> None:
    source, target = tree(tmp_path / "a"), tree(tmp_path / "b")
    assert source.rootfs is not None
    assert target.rootfs is not None
    for content, when in ((b"one", 10**18), (b"two", 10**18 + 1000)):
        (source.rootfs / "file").write_bytes(content)
        os.utime(source.rootfs / "file", ns=(when, when))
        await carry(source, target, Options())
        assert (target.rootfs / "file").read_bytes() == content


@pytest.mark.parametrize("limited", ["source", "target"])
async def test_either_end_keeps_its_own_limit(tmp_path: Path, limited: str) -> None:
    source, target = Tree(tmp_path / "a"), Tree(tmp_path / "b")
    for each in (source, target):
        each.folder.mkdir()
    (source.folder / "file").write_bytes(os.urandom(300_000))
    slow, fast = Options(rate=600_000), Options()
    near, far = link()
    begun = time.monotonic()
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(rsync.send(source, near, slow if limited == "source" else fast, lambda _: None))
        group.create_task(rsync.receive(target, far, slow if limited == "target" else fast, lambda _: None))
    assert time.monotonic() - begun > 0.45
    assert (target.folder / "file").read_bytes() == (source.folder / "file").read_bytes()


async def test_ids_of_another_host_become_those_of_the_instance(tmp_path: Path) -> None:
    source, plain, target = (tree(tmp_path / name) for name in "abc")
    plant(source.rootfs, 100_000)
    plant(plain.rootfs, 0)
    os.setxattr(source.rootfs / "file0", "security.capability", struct.pack("<6I", 0x03000001, 1 << 13, 0, 0, 0, 100_000))
    await carry(source, target, Options(), SHIFT)
    expected = {name: about[1:3] for name, about in looks(plain.rootfs).items()}
    assert {name: about[1:3] for name, about in looks(target.rootfs).items()} == expected
    capability = os.getxattr(target.rootfs / "file0", "security.capability")
    assert capability == struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)


@pytest.mark.parametrize(
    "ranges",
    [
        (IdRange(0, 0, 10),),
        (IdRange(0, 5, 1 << 32),),
        (IdRange(0, -5, 10),),
        (IdRange(0, 100_000, 10, groups=False),),
        tuple(IdRange(number, 1000 + number, 1) for number in range(400)),
    ],
)
async def test_maps_that_files_cannot_have(tmp_path: Path, ranges: tuple[IdRange, ...]) -> None:
    with pytest.raises(BadRequest):
        await rsync.receive(tree(tmp_path), link()[0], Options(), lambda _: None, shifted=IdMap(ranges))


class Evil(Tree):
    """Sends its folder alone, whatever is in the place of the root file system."""

    def binds(self, *, writable: bool) -> list[Bind]:
        return [Bind(self.folder, "tree", writable=writable)]


async def test_links_lead_nowhere(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.mkdir(mode=0o700)
    (canary / "secret").write_text("secret")
    before = (looks(tmp_path / "canary"), canary.lstat().st_mode)
    source, target = tree(tmp_path / "a"), tree(tmp_path / "b")
    (source.folder / "rootfs").rmdir()
    (source.folder / "rootfs").symlink_to(canary)
    (source.folder / "templates").symlink_to(canary)
    (source.folder / "metadata.yaml").symlink_to(canary / "secret")
    with pytest.raises(ExceptionGroup) as failed:
        await carry(Evil(source.folder, source.rootfs), target, Options())
    assert all(isinstance(error, HostError | Unavailable) for error in failed.value.exceptions)
    data = tmp_path / "data"
    data.mkdir()
    await staging.place_beside(target.folder, data)
    assert list(data.iterdir()) == []
    assert (looks(tmp_path / "canary"), canary.lstat().st_mode) == before


async def test_no_device_is_made(tmp_path: Path) -> None:
    source, target = tree(tmp_path / "a"), tree(tmp_path / "b")
    os.mknod(source.rootfs / "disk", 0o060666, os.makedev(7, 0))
    with pytest.raises(ExceptionGroup):
        await carry(source, target, Options())
    assert not (target.rootfs / "disk").exists()


async def test_only_small_regular_files_of_known_names_are_put_beside(tmp_path: Path) -> None:
    beside, data = tmp_path / "beside", tmp_path / "data"
    (beside / "templates").mkdir(parents=True)
    data.mkdir()
    (beside / "metadata.yaml").write_text("x")
    (beside / "backup.yaml").write_text("theirs")
    (beside / "templates" / "good.tpl").write_text("t")
    (beside / "templates" / "large.tpl").write_bytes(bytes(2 << 20))
    (beside / "templates" / "link.tpl").symlink_to("/etc/passwd")
    os.mkfifo(beside / "templates" / "fifo.tpl")
    await staging.place_beside(beside, data)
    assert sorted(str(path.relative_to(data)) for path in data.rglob("*")) == [
        "metadata.yaml",
        "templates",
        "templates/good.tpl",
    ]


async def test_a_link_that_breaks(tmp_path: Path) -> None:
    source = tree(tmp_path)
    near, far = link()
    near.gone = True
    await far.send_end()
    with pytest.raises(Unavailable):
        async with asyncio.timeout(10):
            await rsync.send(source, near, Options(), lambda _: None)
