"""Paths that are not trusted stay in their folder; trees go whatever is in them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from atoll.domain.errors import BadRequest, HostError, NotFound, TooLarge
from atoll.host import confined, mount


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file, links that lead out, and a secret beside it."""
    (tmp_path / "secret").write_text("of the host")
    folder = tmp_path / "volume"
    (folder / "templates").mkdir(parents=True)
    (folder / "templates/a").write_text("inside")
    (folder / "absolute").symlink_to(tmp_path / "secret")
    (folder / "climbing").symlink_to("../secret")
    (folder / "out").symlink_to("..")
    (folder / "within").symlink_to("templates/a")
    os.mkfifo(folder / "fifo")
    return folder


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "absolute", "climbing", "out/secret", "within", "templates/../../secret"]
)
def test_a_path_that_leads_out_or_through_a_link_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(BadRequest):
        confined.read(folder, name)


def test_reading(folder: Path) -> None:
    assert confined.read(folder, "templates/a") == b"inside"
    assert confined.read(folder, "templates/a", limit=6) == b"inside"
    with pytest.raises(TooLarge):
        confined.read(folder, "templates/a", limit=5)
    with pytest.raises(NotFound):
        confined.read(folder, "templates/b")
    for name in ("fifo", "templates"):
        with pytest.raises(BadRequest, match="regular"):
            confined.read(folder, name)


def test_writing_replaces_a_link_and_follows_none(folder: Path, tmp_path: Path) -> None:
    confined.write(folder, "absolute", b"mine", mode=0o640)
    assert (folder / "absolute").read_text() == "mine" and not (folder / "absolute").is_symlink()
    assert (folder / "absolute").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "secret").read_text() == "of the host"
    with pytest.raises(BadRequest):
        confined.write(folder, "out/secret", b"x")
    for name in ("", "templates/", "..", "templates/.."):
        with pytest.raises(BadRequest):
            confined.write(folder, name, b"x")


def test_a_failed_write_leaves_the_old_content_and_nothing_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    before = set(os.listdir(folder / "templates"))
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        confined.write(folder, "templates/a", b"new")
    assert set(os.listdir(folder / "templates")) == before
    assert (folder / "templates/a").read_text() == "inside"


def test_a_tree_is_removed_and_links_in_it_are_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_text("x")
    (folder / "to-kept").symlink_to(tmp_path / "kept")
    confined.remove_tree(folder)
    confined.remove_tree(folder)
    assert sorted(os.listdir(tmp_path)) == ["kept", "secret"] and (tmp_path / "kept/file").exists()


def test_a_link_in_the_place_of_a_tree_is_removed_itself(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    confined.remove_tree(tmp_path / "link")
    assert (folder / "templates/a").exists() and not (tmp_path / "link").is_symlink()


def test_a_tree_deeper_than_any_path_may_be_long(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d" * 10, dir_fd=here)
        below = os.open("d" * 10, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    confined.remove_tree(tmp_path / ("d" * 10))
    assert os.listdir(tmp_path) == []


def test_who_has_a_folder_open_may_write_one_more_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late = os.open(folder / "templates", os.O_RDONLY)
    removed = os.rmdir

    def rmdir(name: str, **kwargs: Any) -> None:
        if name == "templates" and not written:
            written.append(os.open("late", os.O_CREAT | os.O_WRONLY, dir_fd=late))
        removed(name, **kwargs)

    written: list[int] = []
    monkeypatch.setattr(os, "rmdir", rmdir)
    confined.remove_tree(folder)
    assert written and not folder.exists()
    for descriptor in (late, *written):
        os.close(descriptor)


@pytest.mark.system
def test_immutable_files_are_removed(folder: Path) -> None:
    for path in (folder / "templates/a", folder / "templates"):
        if subprocess.run(["chattr", "+i", path], capture_output=True).returncode != 0:
            pytest.skip("no chattr on this file system")
    confined.remove_tree(folder)
    assert not folder.exists()


@pytest.mark.system
def test_what_is_mounted_below_is_kept(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_text("x")
    mount.bind(tmp_path / "kept", folder / "templates")
    try:
        with pytest.raises(HostError, match="mounted"):
            confined.remove_tree(folder)
        assert (tmp_path / "kept/file").exists()
    finally:
        mount.unmount(folder / "templates")
