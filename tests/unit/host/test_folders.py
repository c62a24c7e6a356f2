"""The daemon's own folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from atoll.domain.paths import FOLDERS, Paths
from atoll.host import folders


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path / "state")
    folders.make_state(paths)
    return paths


def test_the_state_has_its_modes_whatever_was_there(paths: Paths) -> None:
    (paths.root / "images").chmod(0o777)
    folders.make_state(paths)
    assert {name: (paths.root / name).stat().st_mode & 0o7777 for name in FOLDERS} == FOLDERS


async def test_an_instance_comes_and_goes(paths: Paths, tmp_path: Path) -> None:
    for _ in range(2):
        await folders.make_instance_folders(paths, "c1", tmp_path / "volume")
    assert (paths.containers / "c1").readlink() == tmp_path / "volume"
    assert [folder.stat().st_mode & 0o777 for folder in (paths.logs("c1"), paths.run("c1"), paths.devices("c1"))] == [
        0o700,
        0o711,
        0o711,
    ]
    (paths.logs("c1") / "lxc.log").write_text("x")
    for _ in range(2):
        await folders.remove_instance_folders(paths, "c1")
    assert not any(path.exists() for path in (paths.logs("c1"), paths.run("c1"), paths.devices("c1")))
    assert not (paths.containers / "c1").is_symlink()


async def test_a_link_to_the_volume_is_not_followed(paths: Paths, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "file").write_text("kept")
    await folders.make_instance_folders(paths, "c1", volume)
    (paths.logs("c1") / "link").symlink_to(volume)
    await folders.remove_instance_folders(paths, "c1")
    assert (volume / "file").read_text() == "kept"


async def test_a_rename_takes_all_along_and_can_be_repeated(paths: Paths, tmp_path: Path) -> None:
    await folders.make_instance_folders(paths, "c1", tmp_path / "c1")
    (paths.logs("c1") / "lxc.log").write_text("x")
    for _ in range(2):
        await folders.rename_instance_folders(paths, "c1", "c2", tmp_path / "c2")
    assert (paths.logs("c2") / "lxc.log").read_text() == "x"
    assert (paths.containers / "c2").readlink() == tmp_path / "c2"
    assert not paths.logs("c1").exists() and not (paths.containers / "c1").is_symlink()
