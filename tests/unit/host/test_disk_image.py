"""Disks as files: their holes, what changes in place, and what a stranger may have put there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from atoll.domain.errors import BadRequest, HostError, NotFound
from atoll.host import disk_image
from atoll.host.disk_image import FILE, PIECE, Measure

GIB = 1 << 30


def disk(folder: Path, size: int, **parts: bytes) -> Path:
    """A new disk with these bytes at the positions that their names end with."""
    folder.mkdir()
    disk_image.make(folder, size)
    with disk_image.opened(folder) as image:
        for name, data in parts.items():
            disk_image.write(image, int(name[2:]), data)
    return folder


def content(folder: Path, position: int, size: int) -> bytes:
    with disk_image.opened(folder, flags=os.O_RDONLY) as image:
        return os.pread(image, size, position)


def test_a_disk_takes_what_was_written(tmp_path: Path) -> None:
    made = disk(tmp_path / "a", 10 * GIB)
    assert disk_image.measure(made) == Measure(10 * GIB, 0)
    disk_image.resize(made, 20 * GIB)
    with disk_image.opened(made) as image:
        assert disk_image.write(image, GIB, b"x" * 5000) == 5000
        assert disk_image.write(image, GIB, b"x" * 5000) == 0
    found = disk_image.measure(made)
    assert found.size == 20 * GIB and 5000 <= found.used <= 3 * PIECE
    with disk_image.opened(made) as image:
        disk_image.write(image, GIB, bytes(8192))
    assert disk_image.measure(made).used < found.used
    with pytest.raises(FileExistsError):
        disk_image.make(made, 1)


async def test_a_copy_that_is_there_becomes_like_another(tmp_path: Path) -> None:
    one = disk(tmp_path / "one", 10 * GIB, at0=b"same" * 2000, at1073741824=b"new" * 100_000)
    other = disk(tmp_path / "other", 5 * GIB, at0=b"same" * 2000, at2147483648=b"old" * 100_000)
    await disk_image.sync(one, other)
    assert content(other, GIB, 300_000) == b"new" * 100_000
    assert content(other, 2 * GIB, 300_000) == bytes(300_000)
    assert disk_image.measure(other) == disk_image.measure(one)
    await disk_image.sync(other, one)
    small = disk(tmp_path / "small", 4096)
    await disk_image.sync(small, one)
    assert disk_image.measure(one).size == 4096
    with pytest.raises(NotFound):
        await disk_image.sync(tmp_path, one)


async def test_no_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    one, other = disk(tmp_path / "one", GIB, at0=b"x"), disk(tmp_path / "other", GIB)
    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(HostError, match="No space left"):
        await disk_image.sync(one, other)


def test_a_file_is_put_with_its_holes(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with file.open("wb") as opened:
        opened.truncate(GIB)
        opened.write(b"head")
    (tmp_path / "a").mkdir()
    disk_image.put(file, tmp_path / "a")
    found = disk_image.measure(tmp_path / "a")
    assert found.size == GIB and found.used <= PIECE
    assert (tmp_path / "a" / FILE).stat().st_mode & 0o7777 == 0o600


@pytest.mark.parametrize("kind", ["link", "folder", "fifo", "names", "nothing"])
def test_what_is_no_disk_is_refused(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "a" / FILE
    file.parent.mkdir()
    (tmp_path / "secret").write_text("secret")
    if kind == "link":
        file.symlink_to("../secret")
    elif kind == "folder":
        file.mkdir()
    elif kind == "fifo":
        os.mkfifo(file)
    elif kind == "names":
        os.link(tmp_path / "secret", file)
    with pytest.raises((BadRequest, NotFound, IsADirectoryError)):
        disk_image.settle(file.parent)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o644
