"""Copies of trees: the same whichever way they are made, and safe from a guest that changes its tree meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from atoll.domain.errors import HostError
from atoll.drivers.storage.conformance import content
from atoll.host import file_copy, trees

Copy = Callable[[Path, Path], Awaitable[None]]

pytestmark = pytest.mark.system


@pytest.fixture
async def source(tmp_path: Path) -> Path:
    """A root file system with one of everything, and an overlay's marks on it."""
    data = tmp_path / "source"
    (data / "rootfs").mkdir(parents=True)
    await content.fill_image(data)
    os.mknod(data / "rootfs/whiteout", 0o020000, 0)
    os.setxattr(data / "rootfs/empty", "trusted.overlay.opaque", b"y")
    os.utime(data / "rootfs/etc", ns=(1, 2))
    return data / "rootfs"


@pytest.mark.parametrize("copy", [trees.copy_still, trees.copy_live], ids=["still", "live"])
@pytest.mark.parametrize("made", [False, True], ids=["new", "into-empty"])
async def test_everything_is_kept(source: Path, tmp_path: Path, copy: Copy, *, made: bool) -> None:
    target = tmp_path / "target"
    if made:
        target.mkdir(mode=0o700)
    await copy(source, target)
    assert content.describe(target) == content.describe(source)
    assert os.getxattr(target / "empty", "trusted.overlay.opaque") == b"y"
    assert (target / "whiteout").stat().st_rdev == 0
    assert (target / "etc").stat().st_mtime_ns == 2
    assert (target / "var/sparse").stat().st_blocks * 512 < 1 << 20


async def test_the_copies_of_a_moving_tree_hold_nothing_from_outside(tmp_path: Path) -> None:
    source, outside = tmp_path / "source", tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("secret")
    (source / "swapped").mkdir(parents=True)
    (source / "swapped/file").write_text("guest")
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            (source / "swapped").rename(source / "aside")
            (source / "swapped").symlink_to(outside)
            (source / "swapped").unlink()
            (source / "aside").rename(source / "swapped")

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for number in range(200):
            target = tmp_path / f"copy{number}"
            await trees.copy_live(source, target)
            for path in target.glob("*/file"):
                assert path.parent.is_symlink() or path.read_text() == "guest"
    finally:
        done.set()
        swapper.join()


async def test_a_failure_is_told_with_its_reason(tmp_path: Path) -> None:
    for copy in (trees.copy_still, trees.copy_live):
        with pytest.raises(HostError, match="No such file"):
            await copy(tmp_path / "missing", tmp_path / "target")


@pytest.mark.parametrize(("file", "told"), [("/a/x", " (/a/x)"), (None, "")])
def test_a_failure_names_the_file_where_it_is_known(file: str | None, told: str) -> None:
    error = OSError(28, "No space left on device", file)
    assert str(file_copy.failed(Path("/a"), error)) == f"Cannot copy /a: No space left on device{told}"
