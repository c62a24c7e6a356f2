"""A pool's folders: names on disk, renames that a kill cut short, where a pool may be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from atoll.domain.errors import BadRequest, Conflict
from atoll.drivers.storage import source
from atoll.drivers.storage.contract import Pool, VolumeId, VolumeKind
from atoll.drivers.storage.folders import Folders

C1 = VolumeId(VolumeKind.INSTANCE, "default", "c1")
C2 = VolumeId(VolumeKind.INSTANCE, "other", "c2")
ALL = [C1, C1.at("s0"), C2, VolumeId(VolumeKind.IMAGE, "default", "f" * 64), VolumeId(VolumeKind.CUSTOM, "p", "a_b")]


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """An empty pool."""
    folders = Folders(Pool("p", tmp_path / "pools/p"))
    folders.make()
    return folders


def add(folders: Folders, *volumes: VolumeId) -> None:
    """Make volumes with nothing in them."""
    for volume in volumes:
        folders.publish(folders.temporary(), volume)


def test_what_is_published_is_found(folders: Folders) -> None:
    add(folders, *ALL)
    assert set(folders.scan()) == set(ALL)
    assert folders.compare(ALL) == []
    with pytest.raises(Conflict):
        add(folders, C1)


def test_the_names_are_those_of_lxd(folders: Folders) -> None:
    names = [str(folders.data(volume).relative_to(folders.root)) for volume in ALL]
    assert names == ["containers/c1", "containers-snapshots/c1/s0", "containers/other_c2", f"images/{'f' * 64}", "custom/p_a_b"]


@pytest.mark.parametrize("renamed", ["neither", "snapshots", "both"])
@pytest.mark.parametrize("known", [C1, C2], ids=["undo", "finish"])
def test_a_rename_cut_short_is_settled_as_the_database_has_it(folders: Folders, renamed: str, known: VolumeId) -> None:
    add(folders, C1, C1.at("s0"))
    folders.rename(C1, C2)
    if renamed != "both":
        folders.data(C2).rename(folders.data(C1))
    if renamed == "neither":
        folders.snapshots(C2).rename(folders.snapshots(C1))
    folders.settle_renames([known, known.at("s0")])
    assert set(folders.scan()) == {known, known.at("s0")}
    assert folders.settle_renames([known, known.at("s0")]) == []


def test_a_name_that_is_used_again_is_not_confused_with_an_old_rename(folders: Folders) -> None:
    add(folders, C1)
    folders.rename(C1, C2)
    add(folders, C1)
    assert folders.settle_renames([C1, C2]) == []
    assert set(folders.scan()) == {C1, C2}


def test_notes_of_renames_do_not_pile_up_for_a_volume(folders: Folders) -> None:
    add(folders, C1)
    for _ in range(5):
        folders.rename(C1, C2)
        folders.rename(C2, C1)
    notes = list((folders.root / ".renames").iterdir())
    assert len(notes) == 1 and json.loads(notes[0].read_text())[1][2] == "c1"


def test_side_files_are_copied_and_links_are_not(tmp_path: Path) -> None:
    from atoll.drivers.storage import folders

    data, target = tmp_path / "data", tmp_path / "target"
    (data / "templates/deep").mkdir(parents=True)
    (data / "rootfs").mkdir()
    target.mkdir()
    (tmp_path / "secret").write_text("x")
    (data / "metadata.yaml").write_text("m")
    (data / "templates/a.tpl").write_text("a")
    (data / "templates/link").symlink_to(tmp_path / "secret")
    (data / "backup.yaml").symlink_to(tmp_path / "secret")
    (data / "layers").write_text("l")
    folders.copy_side_files(data, target, without={"layers"})
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*")) == [
        "metadata.yaml",
        "templates",
        "templates/a.tpl",
    ]


@pytest.mark.parametrize("where", ["", "pools", "pools/p/below", "pools/other"])
def test_a_source_may_not_overlap_the_daemon_s_folders(tmp_path: Path, where: str) -> None:
    (tmp_path / where).mkdir(parents=True, exist_ok=True)
    (tmp_path / "pools").mkdir(exist_ok=True)
    with pytest.raises(BadRequest, match="overlaps"):
        source.validate(Pool("p", tmp_path / "pools/p", {"source": str(tmp_path / where)}))


def test_a_source_must_be_an_empty_directory_given_absolutely(tmp_path: Path) -> None:
    (tmp_path / "state/pools").mkdir(parents=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    for text, said in (("relative", "absolute"), (f"{tmp_path}/a/../b", "absolute"), ("missing", "exist"), ("full", "empty")):
        path = text if text == "relative" or text.startswith("/") else str(tmp_path / text)
        with pytest.raises(BadRequest, match=said):
            source.validate(Pool("p", tmp_path / "state/pools/p", {"source": path}))


def test_the_pool_s_own_folder_is_a_fine_source(tmp_path: Path) -> None:
    root = tmp_path / "pools/p"
    pool = Pool("p", root, {"source": str(root)})
    assert source.create(pool) == {"source": str(root)}
    assert root.stat().st_mode & 0o777 == 0o711
    source.delete(pool)
    assert not root.exists()


@pytest.mark.system
def test_a_source_elsewhere_is_bound_and_left_empty(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    pool = Pool("p", tmp_path / "state/pools/p", {"source": str(tmp_path / "disk")})
    try:
        assert source.create(pool) == {"source": str(tmp_path / "disk")}
        assert (tmp_path / "disk/containers").is_dir() and (pool.root / "containers").is_dir()
        source.attach(pool)
        source.detach_if_idle(pool)
        assert not (pool.root / "containers").exists()
        source.attach(pool)
    finally:
        source.delete(pool)
    assert list((tmp_path / "disk").iterdir()) == [] and not pool.root.exists()
