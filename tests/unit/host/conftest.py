"""What tests of archives share. Modules here that are no tests are imported by name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """An empty volume as a storage driver hands it out."""
    folder = tmp_path / "target"
    (folder / "rootfs").mkdir(parents=True)
    return folder


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A file outside of the target that must stay as it is."""
    path = tmp_path / "canary"
    path.write_text("untouched")
    before = path.stat()
    yield path
    after = path.lstat()
    assert path.read_text() == "untouched"
    assert (after.st_mode, after.st_uid, after.st_nlink, after.st_ino) == (
        before.st_mode, before.st_uid, before.st_nlink, before.st_ino,
    )  # fmt: skip
