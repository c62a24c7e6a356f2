"""Trees to store, and what must be the same about them afterwards."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from atoll.domain.idmap import IdMap
from atoll.drivers.storage.contract import Mounted
from atoll.host import mount, threads

MAP = IdMap.plain(1_000_000, 65536)
OTHER_MAP = IdMap.plain(2_000_000, 65536)
CAPABILITY = b"\x01\x00\x00\x02\x00\x04\x00\x00" + bytes(12)
"""security.capability: cap_net_bind_service, permitted and effective."""


@dataclass(frozen=True, slots=True)
class Node:
    """All about a file that a copy keeps. `names` are those of its hard links."""

    mode: int
    uid: int
    gid: int
    device: int
    size: int
    modified: int
    content: str
    xattrs: tuple[tuple[str, bytes], ...]
    names: tuple[str, ...]


def describe(root: Path) -> dict[str, Node]:
    """All nodes of a tree by their path, its root as "."; what an overlay notes for itself is left out."""
    paths = {str(path.relative_to(root)): path for path in [root, *root.rglob("*")]}
    links: dict[int, list[str]] = {}
    for name, path in sorted(paths.items()):
        if not path.is_dir() or path.is_symlink():
            links.setdefault(path.lstat().st_ino, []).append(name)
    return {name: _node(path, tuple(links.get(path.lstat().st_ino, ()))) for name, path in paths.items()}


def _node(path: Path, names: tuple[str, ...]) -> Node:
    found = path.lstat()
    content, size = "", 0
    if stat.S_ISREG(found.st_mode):
        content, size = hashlib.sha256(path.read_bytes()).hexdigest(), found.st_size
    elif stat.S_ISLNK(found.st_mode):
        content = os.readlink(path)
    xattrs = {name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)}
    kept = tuple(sorted(item for item in xattrs.items() if not item[0].startswith("trusted.overlay.")))
    modified = 0 if stat.S_ISDIR(found.st_mode) else found.st_mtime_ns
    return Node(found.st_mode, found.st_uid, found.st_gid, found.st_rdev, size, modified, content, kept, names)


async def fill_image(data: Path) -> None:
    """A root file system with one of everything, and the small files of an image beside it."""
    await threads.in_thread(_fill_image, data)


def _fill_image(data: Path) -> None:
    (data / "metadata.yaml").write_text("architecture: x86_64\n")
    (data / "templates").mkdir()
    (data / "templates/hosts.tpl").write_text("127.0.0.1 localhost\n")
    root = data / "rootfs"
    for name in ("etc", "home/alice", "var/log", "var/lib/old/deep", "tmp", "usr/bin", "empty"):
        (root / name).mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0\nalice:x:1000:1000\n")
    (root / "etc/doomed").write_text("to be removed\n")
    (root / "usr/bin/su").write_bytes(b"\x7fELF")
    (root / "usr/bin/su").chmod(0o4755)
    os.link(root / "usr/bin/su", root / "usr/bin/su-too")
    (root / "usr/bin/ping").write_bytes(b"\x7fELF")
    os.setxattr(root / "usr/bin/ping", "security.capability", CAPABILITY)
    os.setxattr(root / "etc/passwd", "user.comment", b"a\0b")
    (root / "home/alice/note").write_text("mine")
    for name in ("home/alice", "home/alice/note"):
        os.chown(root / name, 1000, 1000)
    os.chown(root / "var/log", 33, 4)
    (root / "tmp").chmod(0o1777)
    os.symlink("/etc/shadow", root / "etc/absolute")
    os.symlink("../../../../../../etc/shadow", root / "etc/climbing")
    os.mkfifo(root / "var/fifo", 0o640)
    os.mknod(root / "var/console", stat.S_IFCHR | 0o600, os.makedev(5, 1))
    for name in ("one", "two", "deep/three"):
        (root / "var/lib/old" / name).write_text(name)
    with open(root / "var/sparse", "wb") as file:
        file.seek(8 << 20)
        file.write(b"end")
    (root / "etc/odd \n\xff:,name").write_text("odd")


async def fill_small(data: Path) -> None:
    """No more than `change` needs, for tests that make it very often."""
    await threads.in_thread(_fill_small, data)


def _fill_small(data: Path) -> None:
    (data / "metadata.yaml").write_text("architecture: x86_64\n")
    for name in ("etc/passwd", "etc/doomed", "home/alice/note", "var/lib/old/one", "var/lib/old/two", "var/lib/old/deep/three"):
        path = data / "rootfs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def change(root: Path, uid: int) -> None:
    """What a guest does to its root: add, change, remove, replace a directory, rename one. `uid` owns what is new."""
    (root / "etc/new").write_text("new")
    os.chown(root / "etc/new", uid, uid)
    (root / "etc/passwd").write_text("changed\n")
    (root / "etc/doomed").unlink()
    for name in ("deep/three", "one", "two"):
        (root / "var/lib/old" / name).unlink()
    (root / "var/lib/old/deep").rmdir()
    (root / "var/lib/old").rmdir()
    (root / "var/lib/old").mkdir()
    (root / "var/lib/old/fresh").write_text("fresh")
    (root / "home/alice").rename(root / "home/bob")
    (root / "home/bob/more").write_text("more")
    os.link(root / "etc/new", root / "etc/new-too")


async def as_guest(mounted: Mounted, idmap: IdMap, action: Callable[[Path, int], None]) -> None:
    """Run `action(root, uid)` on a mounted root as its machine's root would; `uid` is that of the guest's user 1000."""

    def act() -> None:
        with mount.credentials_of_root(idmap if mounted.shifted else None):
            action(mounted.rootfs, 1000 + (idmap.root if mounted.shifted else 0))

    await threads.in_thread(act)
