"""Choosing rows and systems on the command line."""

import json
from pathlib import Path

import pytest
from atollbench import main, systems
from atollbench.targets import ROWS


def test_all_rows_are_measured_unless_some_are_named() -> None:
    assert main.choose_rows(None) == ROWS
    assert main.choose_rows("none") == ()
    assert [row.key for row in main.choose_rows("exec,launch")] == ["launch", "exec"]


def test_an_unknown_row_or_system_is_refused_with_what_there_is() -> None:
    with pytest.raises(main.UsageError, match=r"no row walk; there are: launch"):
        main.choose_rows("launch,walk")
    with pytest.raises(main.UsageError, match=r"no system docker; there are: lxd, incus, atoll"):
        main.choose_systems("docker", None)


def test_a_system_asked_for_by_name_must_be_installed(tmp_path: Path) -> None:
    with pytest.raises(main.UsageError, match="not installed: Atoll"):
        main.choose_systems("atoll", tmp_path)


def test_atoll_is_taken_from_the_given_directory(tmp_path: Path) -> None:
    for name in ("atoll", "atolld"):
        (tmp_path / name).touch(mode=0o755)
    (system,) = main.choose_systems("atoll", tmp_path)
    assert system.list_all() == [str(tmp_path / "atoll"), "list"]
    assert system.waitready() == [str(tmp_path / "atolld"), "waitready", "--timeout", "60"]


def test_systems_inherit_nothing_of_the_callers_environment() -> None:
    environment = systems.INCUS.environment(Path("/r"))
    assert set(environment) == {"PATH", "HOME", "LANG", "INCUS_DIR", "INCUS_CONF"}
    assert environment["INCUS_DIR"] == "/r/state"


def test_the_preseed_differs_in_the_pool_alone() -> None:
    lxd, atoll = json.loads(systems.LXD.preseed()), json.loads(systems.atoll(None).preseed())
    assert lxd.pop("storage_pools") == [{"name": "default", "driver": "btrfs", "config": {"size": systems.POOL_SIZE}}]
    assert atoll.pop("storage_pools") == [{"name": "default", "driver": "overlay"}]
    assert lxd == atoll
