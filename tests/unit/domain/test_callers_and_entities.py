"""Small rules of the domain: who may do what, which project owns what, where files are."""

from __future__ import annotations

from pathlib import Path

import pytest

from atoll.domain.caller import DAEMON, NOBODY, Caller, Protocol
from atoll.domain.entities import Project
from atoll.domain.paths import FOLDERS, Paths

ADMIN = Caller(Protocol.UNIX, username="root", trusted=True)
RESTRICTED = Caller(Protocol.TLS, trusted=True, restricted=True, projects=frozenset({"p"}))
METRICS = Caller(Protocol.TLS, trusted=True, certificate_type="metrics", projects=frozenset({"p"}))
UNTRUSTED = Caller(Protocol.TLS, projects=frozenset({"p"}))


@pytest.mark.parametrize(
    ("caller", "admin", "p", "q"),
    [
        (ADMIN, True, True, True),
        (DAEMON, True, True, True),
        (RESTRICTED, False, True, False),
        (METRICS, False, False, False),
        (UNTRUSTED, False, False, False),
        (NOBODY, False, False, False),
    ],
)
def test_rights(caller: Caller, admin: bool, p: bool, q: bool) -> None:
    assert (caller.is_admin, caller.may_use("p"), caller.may_use("q")) == (admin, p, q)


def test_requestors() -> None:
    assert ADMIN.requestor() == {"username": "root", "protocol": "unix", "address": ""}


@pytest.mark.parametrize(("value", "own"), [("true", True), ("TRUE", True), ("On", True), ("false", False), ("", False)])
def test_features_of_projects(value: str, own: bool) -> None:
    project = Project(2, "p", "", {"features.images": value})
    assert project.has("images") is own
    assert project.owner_of("images") == ("p" if own else "default")
    assert not project.has("profiles")
    assert Project(1, "default", "", {}).has("images")


def test_every_path_is_below_the_state_directory_in_a_folder_that_is_made() -> None:
    root = Path("/state")
    paths = Paths(root)
    files = [paths.socket, paths.global_database, paths.local_database, *paths.server_certificate]
    files += [paths.logs("a"), paths.run("a"), paths.devices("a")]
    files += [folder / "x" for folder in (paths.images, paths.backups, paths.pools, paths.networks, paths.containers)]
    made = {root / name for name in FOLDERS}
    assert all(file.parent in made for file in files)
    assert len(set(files)) == len(files)


def test_nothing_secret_is_readable_by_others() -> None:
    for name in ("database", "database/global", "backups", "images", "logs"):
        assert FOLDERS[name] == 0o700
    assert not any(mode & 0o022 for mode in FOLDERS.values())
