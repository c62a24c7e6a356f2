"""One tree made like another."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest

from atoll.domain.errors import HostError
from atoll.drivers.storage.conformance.content import change, describe, fill_image
from atoll.host import treesync

pytestmark = pytest.mark.system

ACL = bytes.fromhex("0200000001000700ffffffff02000700e803000004000500ffffffff10000700ffffffff20000500ffffffff")
"""system.posix_acl_access and _default: user 1000 may write."""


@pytest.fixture
async def trees(tmp_path: Path) -> tuple[Path, Path]:
    """A tree with one of everything, and an exact copy of it."""
    for name in ("source", "target"):
        (tmp_path / name / "rootfs").mkdir(parents=True)
        await fill_image(tmp_path / name)
    source, target = tmp_path / "source/rootfs", tmp_path / "target/rootfs"
    await treesync.sync(source, target)
    return source, target


async def bring(source: Path, target: Path) -> None:
    """`sync`, and that it leaves nothing to do for the next."""
    await treesync.sync(source, target)
    assert describe(target) == describe(source)
    times = _changed(target)
    await treesync.sync(source, target)
    assert _changed(target) == times


def _changed(root: Path) -> dict[Path, int]:
    return {path: path.lstat().st_ctime_ns for path in root.rglob("*")}


async def test_an_empty_tree_becomes_the_same(trees: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    await bring(trees[0], tmp_path / "new")
    sparse = (tmp_path / "new/var/sparse").stat()
    assert sparse.st_blocks * 512 < sparse.st_size
    assert (tmp_path / "new/etc").stat().st_mtime_ns == (trees[0] / "etc").stat().st_mtime_ns


async def test_between_file_systems_of_two_kinds(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        source = Path(folder)
        (source / "large").write_bytes(os.urandom(3 << 20))
        with (source / "sparse").open("wb") as file:
            file.seek(4 << 20)
            file.write(b"end")
        await bring(source, tmp_path)


async def test_what_a_guest_changes_is_changed_and_nothing_else(trees: tuple[Path, Path]) -> None:
    source, target = trees
    kept = (target / "usr/bin/su").stat().st_ino
    change(source, 1000)
    await bring(source, target)
    assert (target / "usr/bin/su").stat().st_ino == kept


async def test_and_back_again(trees: tuple[Path, Path]) -> None:
    source, target = trees
    change(target, 1000)
    await bring(source, target)


def _replace_types(root: Path) -> None:
    (root / "etc/passwd").unlink()
    (root / "etc/passwd").mkdir()
    shutil.rmtree(root / "var/lib/old")
    os.mkfifo(root / "var/lib/old")
    (root / "var/fifo").unlink()
    (root / "var/fifo").symlink_to("nowhere")
    (root / "etc/absolute").unlink()
    (root / "etc/absolute").write_text("a file")


def _attributes(root: Path) -> None:
    os.removexattr(root / "usr/bin/ping", "security.capability")
    os.setxattr(root / "etc/passwd", "user.comment", b"other")
    os.setxattr(root / "home", "system.posix_acl_default", ACL)
    os.setxattr(root / "home/alice/note", "system.posix_acl_access", ACL)
    os.chown(root / "home/alice/note", 1001, 1001)
    (root / "etc/doomed").chmod(0o600)
    os.chown(root / "etc/climbing", 5, 5, follow_symlinks=False)
    os.setxattr(root / "etc/climbing", "trusted.note", b"x", follow_symlinks=False)
    (root / "var/log").chmod(0o2750)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "s"))


def _same_size(root: Path) -> None:
    (root / "etc/doomed").write_text("TO BE REMOVED\n")
    os.utime(root / "etc/doomed", ns=(1, (root / "etc/doomed").stat().st_mtime_ns + 1))


@pytest.mark.parametrize("alter", [_replace_types, _attributes, _same_size])
@pytest.mark.parametrize("other_way", [False, True], ids=["there", "back"])
async def test_differences(trees: tuple[Path, Path], alter, *, other_way: bool) -> None:  # type: ignore[no-untyped-def]
    source, target = trees
    alter(target if other_way else source)
    await bring(source, target)


async def test_inherited_lists_of_rights_do_not_stay(trees: tuple[Path, Path]) -> None:
    source, target = trees
    os.setxattr(target / "home/alice", "system.posix_acl_default", ACL)
    (source / "home/alice/later").write_text("x")
    os.mkfifo(source / "home/alice/pipe")
    await bring(source, target)
    assert os.listxattr(target / "home/alice/later") == []


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
async def test_names_of_one_file_and_of_two(tmp_path: Path, names: tuple[str, str]) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for root in (source, target):
        root.mkdir()
    one, other = names
    (source / one).write_text("same")
    shutil.copy2(source / one, source / other)
    shutil.copy2(source / one, target / one)
    os.link(target / one, target / other)
    await bring(source, target)
    (target / one).write_text("changed in place")
    assert (target / other).read_text() == "same"
    (source / one).unlink()
    os.link(source / other, source / one)
    (source / "third").hardlink_to(source / one)
    await bring(source, target)
    assert (target / "third").stat().st_nlink == 3


def _forbid_changes(*paths: Path) -> bool:
    return subprocess.run(["chattr", "+i", *paths], check=False, capture_output=True).returncode == 0


async def test_flags_do_not_stand_in_the_way(trees: tuple[Path, Path]) -> None:
    source, target = trees
    if not _forbid_changes(target / "etc/passwd", target / "etc/doomed"):
        pytest.skip("the file system has no flags")
    (source / "etc/doomed").unlink()
    (source / "etc/passwd").write_text("new")
    await bring(source, target)


async def test_no_link_is_followed(trees: tuple[Path, Path], tmp_path: Path) -> None:
    source, target = trees
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/passwd").write_text("of the host")
    shutil.rmtree(target / "etc")
    (target / "etc").symlink_to(tmp_path / "outside")
    await bring(source, target)
    assert stat.S_ISDIR((target / "etc").lstat().st_mode)
    assert (tmp_path / "outside/passwd").read_text() == "of the host"


async def test_a_tree_that_is_too_deep_is_refused(trees: tuple[Path, Path]) -> None:
    source, target = trees
    deep = source
    for _ in range(treesync.DEEPEST + 2):
        deep = deep / "d"
        deep.mkdir()
    with pytest.raises(HostError, match="deeper than"):
        await treesync.sync(source, target)


async def test_where_times_do_not_tell_the_content_is_compared(trees: tuple[Path, Path]) -> None:
    source, target = trees
    file, copy = source / "etc/passwd", target / "etc/passwd"
    file.write_text("".join(reversed(copy.read_text())))
    os.utime(file, ns=(copy.stat().st_atime_ns, copy.stat().st_mtime_ns))
    await treesync.sync(source, target)
    assert copy.read_text() != file.read_text()
    await treesync.sync(source, target, read_content=True)
    assert copy.read_text() == file.read_text()
