"""A folder moves to another place and home again; cut off at any step, it is whole after `settle`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from atoll.domain.errors import Conflict
from atoll.host import relocate

CONTENT = {"a": "1", "instances/c1/backup0": "2"}


def fill(folder: Path) -> None:
    """The content that must never be lost."""
    for name, text in CONTENT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def content(folder: Path) -> dict[str, str]:
    """What is there now."""
    top = folder.resolve()
    return {str(path.relative_to(top)): path.read_text() for path in sorted(top.rglob("*")) if path.is_file()}


class Place:
    """A folder and two volumes; `at` is what the settings say (None: at home)."""

    def __init__(self, root: Path, at: str | None) -> None:
        self.folder = root / "backups"
        self.volumes = {name: root / f"volume-{name}" for name in "ab"}
        for volume in self.volumes.values():
            volume.mkdir(mode=0o711)
        real = self.folder if at is None else self.volumes[at]
        real.mkdir(exist_ok=True)
        real.chmod(0o700)
        fill(real)
        if at is not None:
            self.folder.symlink_to(real)

    def steps(self, target: Path | None) -> list[Callable[[], None]]:
        """A move, step by step; the settings change between the last two."""
        new = relocate.beside(self.folder)
        return [
            lambda: relocate.prepare(self.folder, target),
            lambda: (new.resolve() / "a").write_text("half") and None,
            lambda: shutil.copytree(self.folder.resolve(), new.resolve(), dirs_exist_ok=True) and None,
            lambda: relocate.begin(self.folder, busy=()),
        ]

    def check(self, at: Path | None) -> None:
        """All is there, and nothing of it anywhere else."""
        assert relocate.is_at(self.folder, at) and content(self.folder) == CONTENT
        assert not os.path.lexists(relocate.beside(self.folder))
        for volume in self.volumes.values():
            if volume != at:
                assert not list(volume.iterdir()) and volume.stat().st_mode & 0o777 == 0o711


@pytest.mark.parametrize(("start", "end"), [(None, "a"), ("a", None), ("a", "b")])
@pytest.mark.parametrize("done", range(5))
def test_a_move_that_is_cut_off(tmp_path: Path, start: str | None, end: str | None, done: int) -> None:
    place = Place(tmp_path, start)
    old = None if start is None else place.volumes[start]
    new = None if end is None else place.volumes[end]
    for step in place.steps(new)[:done]:
        step()
    assert relocate.settle(place.folder, old) is (done > 0)
    place.check(old)
    assert relocate.settle(place.folder, old) is False


@pytest.mark.parametrize(("start", "end"), [(None, "a"), ("a", None), ("a", "b")])
def test_a_whole_move(tmp_path: Path, start: str | None, end: str | None) -> None:
    place = Place(tmp_path, start)
    new = None if end is None else place.volumes[end]
    for step in place.steps(new):
        step()
    relocate.settle(place.folder, new)
    place.check(new)


def test_what_came_and_went_during_the_copy_is_taken_over(tmp_path: Path) -> None:
    place = Place(tmp_path, None)
    *first, last = place.steps(place.volumes["a"])
    for step in first:
        step()
    (place.folder / "a").unlink()
    (place.folder / "late").mkdir()
    (place.folder / "late/file").write_text("late")
    last()
    relocate.settle(place.folder, place.volumes["a"])
    assert content(place.folder) == {"instances/c1/backup0": "2", "late/file": "late"}


@pytest.mark.parametrize("name", [".upload-1", "instances/c1/.making-2"])
def test_nothing_moves_while_something_is_being_made(tmp_path: Path, name: str) -> None:
    place = Place(tmp_path, None)
    (place.folder / name).mkdir(parents=True)
    with pytest.raises(Conflict):
        relocate.refuse_busy(place.folder, (".upload-", ".making-"))


def test_without_anything_to_heal_it_with_a_wrong_place_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = Place(tmp_path, None)
    assert relocate.settle(place.folder, place.volumes["b"]) is False
    assert "not where the settings say" in caplog.text
    assert content(place.folder) == CONTENT
