"""Files put into a guest's tree stay in it, whatever the guest prepared, and come all or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from atoll.domain.errors import BadRequest
from atoll.host import guest_files
from atoll.host.guest_files import NewFile


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    """A guest's tree with traps, beside a file of the host that must stay as it is."""
    (tmp_path / "canary").write_text("host")
    (tmp_path / "outside").mkdir()
    rootfs = tmp_path / "rootfs"
    (rootfs / "usr/etc").mkdir(parents=True)
    (rootfs / "etc").symlink_to("/usr/etc")  # absolute, as the guest sees it
    (rootfs / "up").symlink_to("../../outside")
    (rootfs / "host").symlink_to(tmp_path / "outside")
    (rootfs / "proc").symlink_to("/proc/self/root")
    (rootfs / "loop").symlink_to("loop")
    (rootfs / "file").write_text("a file")
    (rootfs / "to-canary").symlink_to(tmp_path / "canary")
    (rootfs / "climbing").symlink_to("../canary")
    os.mkfifo(rootfs / "fifo")
    return rootfs


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """All names below a folder with their modes and contents."""
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        content = path.read_bytes() if stat.S_ISREG(mode) else os.fsencode(os.readlink(path)) if stat.S_ISLNK(mode) else b""
        found[str(path.relative_to(folder))] = (mode, content)
    return found


def test_a_file_is_root_s_and_its_folders_are_made(rootfs: Path) -> None:
    old = os.umask(0o077)
    try:
        guest_files.write_all(rootfs, [NewFile("/var/lib/x/file", b"new"), NewFile("/etc/hostname", b"c1")])
    finally:
        os.umask(old)
    assert (rootfs / "var/lib/x/file").read_bytes() == b"new"
    assert (rootfs / "usr/etc/hostname").read_bytes() == b"c1"  # through the guest's own absolute link
    found = (rootfs / "var/lib/x/file").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o644, 0, 0)
    assert stat.S_IMODE((rootfs / "var/lib").stat().st_mode) == 0o755


@pytest.mark.parametrize("name", ["file", "to-canary", "climbing", "fifo"])
def test_what_has_the_name_is_replaced_never_followed(rootfs: Path, tmp_path: Path, name: str) -> None:
    os.link(rootfs / "file", rootfs / "second-name")
    guest_files.write_all(rootfs, [NewFile(f"/{name}", b"new")])
    assert (rootfs / name).read_bytes() == b"new" and not (rootfs / name).is_symlink()
    assert (tmp_path / "canary").read_text() == "host" and (rootfs / "second-name").read_text() == "a file"


@pytest.mark.parametrize(
    "path", ["/up/x", "/host/x", "/proc/x", "/proc/etc/x", "/loop/x", "/file/x", "/../../x", "/usr", "/", "/a/.."]
)
def test_nothing_leaves_the_tree_and_a_failure_leaves_nothing(rootfs: Path, tmp_path: Path, path: str) -> None:
    before = snapshot(tmp_path)
    try:
        guest_files.write_all(rootfs, [NewFile("/first/deep/file", b"x"), NewFile("/file", b"changed"), NewFile(path, b"new")])
    except BadRequest:
        assert snapshot(tmp_path) == before
    else:  # resolved as the guest would: inside
        changed = {name for name, value in snapshot(tmp_path).items() if before.get(name) != value}
        assert changed and all(name.startswith("rootfs/") for name in changed)
    assert not list((tmp_path / "outside").iterdir())


def test_existence_is_seen_as_the_guest_sees_it(rootfs: Path) -> None:
    (rootfs / "usr/etc/there").write_text("")
    assert guest_files.exists(rootfs, "/etc/there") and guest_files.exists(rootfs, "/loop")
    assert not guest_files.exists(rootfs, "/etc/not") and not guest_files.exists(rootfs, "/none/not")
