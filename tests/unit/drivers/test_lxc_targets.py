"""Targets of mounts, followed below a guest's root."""

from __future__ import annotations

from pathlib import Path

import pytest

from atoll.domain.errors import HostError
from atoll.drivers.instance.contract import MountSpec
from atoll.drivers.instance.lxc import targets


@pytest.mark.parametrize(
    ("target", "followed"),
    [
        ("mnt", "mnt"),
        ("not/there/yet", "not/there/yet"),
        ("var/run/socket", "run/socket"),
        ("out/inside", "etc/inside"),
        ("up/inside", "etc/inside"),
        ("loop/inside", "loop/inside"),
        ("dangling/inside", "dangling/inside"),
        ("dev/link/inside", "dev/link/inside"),
        ("/mnt/../etc/", "etc"),
    ],
)
def test_links_lead_nowhere_else(tmp_path: Path, target: str, followed: str) -> None:
    for name in ("mnt", "run", "etc", "dev", "var"):
        (tmp_path / name).mkdir()
    links = {"var/run": "/run", "out": "/etc", "up": "../../../../etc", "loop": "loop", "dangling": "nowhere", "dev/link": "/etc"}
    for name, aim in links.items():
        (tmp_path / name).symlink_to(aim)
    (found,) = targets.followed(tmp_path, [MountSpec("d", "/srv", target)])
    assert found.target == followed


def test_what_another_mount_covers_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "etc").mkdir()
    (tmp_path / "data/link").symlink_to("/etc")
    outer, inner = MountSpec("a", "/srv", "data"), MountSpec("b", "/srv", "data/link")
    assert [each.target for each in targets.followed(tmp_path, [outer, inner])] == ["data", "data/link"]
    assert [each.target for each in targets.followed(tmp_path, [inner])] == ["etc"]


def test_a_root_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(HostError):
        targets.followed(tmp_path / "nowhere", [])
