"""Which disk a path is on: partitions belong to their disk, other file systems to what they are mounted from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from atoll.host import blockdev


@pytest.fixture
def sys(tmp_path: Path) -> Path:
    """/sys/dev/block with a disk, one of its partitions, and the disk that `tmp_path` is on."""
    disk = tmp_path / "devices/vda"
    (disk / "vda1").mkdir(parents=True)
    (disk / "dev").write_text("254:0\n")
    (disk / "vda1/partition").write_text("1\n")
    block = tmp_path / "block"
    block.mkdir()
    (block / "254:0").symlink_to(disk)
    (block / "254:1").symlink_to(disk / "vda1")
    return block


@pytest.mark.parametrize(("device", "disk"), [((254, 0), "254:0"), ((254, 1), "254:0"), ((8, 0), None)])
def test_the_whole_disk(sys: Path, monkeypatch: pytest.MonkeyPatch, device: tuple[int, int], disk: str | None) -> None:
    monkeypatch.setattr(blockdev, "_number_of", lambda _: os.makedev(*device))
    assert blockdev.disk_of(Path("/x"), sys=sys) == disk


def test_a_file_system_without_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sys: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text("1 1 254:0 / / rw - ext4 /dev/vda rw\n2 1 0:40 / /run rw - tmpfs tmpfs rw\n")
    monkeypatch.setattr(blockdev, "_number_of", lambda _: os.makedev(0, 40))
    assert blockdev.disk_of(Path("/run/x"), sys=sys, mounts=mounts) is None


def test_what_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        blockdev.disk_of(Path("/no/such/path"))
