"""waitready, shutdown, activateifneeded and the daemon's options."""

from __future__ import annotations

import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from atoll import runtime
from atoll.cli.errors import CommandError
from atoll.client.errors import ClientError
from atoll.db import schema
from atoll.domain.paths import Paths
from atoll.runtime import home as where
from atoll.runtime import main
from atoll.runtime.commands import activateifneeded, daemon


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "/var/lib/atoll"),
        ({"LXD_DIR": "/l"}, "/l"),
        ({"ATOLL_DIR": "/a", "LXD_DIR": "/l"}, "/a"),
        ({"ATOLL_DIR": "", "LXD_DIR": "/l"}, "/l"),
    ],
)
def test_state_directory(environment: dict[str, str], expected: str) -> None:
    assert where.directory(environment) == Path(expected)


def test_ready_at_once(fake: Any) -> None:
    fake.answers["GET /internal/ready"] = {}
    assert main.dispatch("atolld", ["waitready", "--timeout=1"]) == 0


def test_ready_after_a_while(fake: Any) -> None:
    fake.refuse["GET /internal/ready"] = "Daemon is starting up"
    fake.answers["GET /internal/ready"] = {}
    threading.Timer(0.1, fake.refuse.clear).start()
    assert main.dispatch("atolld", ["waitready", "-t", "30"]) == 0


def test_never_ready(home: Path) -> None:
    with pytest.raises(CommandError, match=r"Atoll still not running after 1s timeout \(Cannot connect"):
        main.dispatch("atolld", ["waitready", "--timeout", "1"])


def test_shutdown_waits_for_the_socket_to_go(fake: Any, home: Path) -> None:
    fake.answers["PUT /internal/shutdown?force=1&timeout=7"] = {}
    fake.answers["GET /internal/ready"] = {}
    moved = home / "gone"
    threading.Timer(0.15, (home / "unix.socket").rename, [moved]).start()
    began = time.monotonic()
    assert main.dispatch("atolld", ["shutdown", "--force", "--timeout", "7"]) == 0
    assert time.monotonic() - began >= 0.15
    moved.rename(home / "unix.socket")


def test_shutdown_gives_up(fake: Any) -> None:
    fake.answers["PUT /internal/shutdown?force=0&timeout=1"] = {}
    fake.answers["GET /internal/ready"] = {}
    with pytest.raises(CommandError, match="Atoll still running after 1s timeout"):
        main.dispatch("atolld", ["shutdown", "-t", "1"])


def test_shutdown_without_a_daemon(home: Path) -> None:
    with pytest.raises(ClientError, match="Cannot connect"):
        main.dispatch("atolld", ["shutdown"])


@pytest.fixture
def databases(tmp_path: Path) -> Iterator[SimpleNamespace]:
    """The daemon's two databases; the shared one with an instance that has two profiles, and a custom volume."""
    paths = Paths(tmp_path)
    opened = SimpleNamespace(directory=tmp_path)
    for name, path, migrations in (
        ("local", paths.local_database, schema.LOCAL),
        ("shared", paths.global_database, schema.GLOBAL),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA synchronous = OFF")
        for statement in (each for step in migrations for each in step):
            connection.execute(statement)
        setattr(opened, name, connection)
    opened.shared.executescript(
        """INSERT INTO instances (id, node_id, project_id, name, architecture, created_at) VALUES (1, 1, 1, 'c1', 'x86_64', '');
        INSERT INTO profiles (id, name, project_id) VALUES (8, 'first', 1), (9, 'second', 1);
        INSERT INTO instances_profiles (instance_id, profile_id, apply_order) VALUES (1, 9, 2), (1, 8, 1);
        INSERT INTO storage_pools (id, name, driver) VALUES (1, 'p', 'dir');
        INSERT INTO storage_volumes (id, storage_pool_id, project_id, name, type) VALUES (1, 1, 1, 'v', 'custom');"""
    )
    yield opened
    opened.local.close()
    opened.shared.close()


LISTENS, STARTS = "Daemon has core.https_address set", "Daemon has auto-started instances"
SNAPSHOTS, VOLUMES = "Daemon has scheduled instance snapshots", "Daemon has scheduled volume snapshots"
OWN = "instances_config (instance_id, key, value) VALUES (1, 'boot.autostart', '{}')"
RAN = "instances_config (instance_id, key, value) VALUES (1, 'volatile.last_state.power', '{}')"
PROFILE = "profiles_config (profile_id, key, value) VALUES ({}, 'boot.autostart', '{}')"
SCHEDULE = "('snapshots.schedule', '@daily', {})"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], None),
        ([OWN.format("true")], STARTS),
        ([OWN.format("false"), RAN.format("RUNNING")], None),
        ([RAN.format("RUNNING")], STARTS),
        ([RAN.format("STOPPED")], None),
        ([PROFILE.format(8, "true")], STARTS),
        ([PROFILE.format(8, "true"), PROFILE.format(9, "false")], None),
        ([PROFILE.format(8, "true"), OWN.format("false")], None),
        ([f"instances_config (key, value, instance_id) VALUES {SCHEDULE.format(1)}"], SNAPSHOTS),
        ([f"profiles_config (key, value, profile_id) VALUES {SCHEDULE.format(8)}"], SNAPSHOTS),
        ([f"storage_volumes_config (key, value, storage_volume_id) VALUES {SCHEDULE.format(1)}"], VOLUMES),
    ],
)
def test_whether_a_daemon_is_needed(databases: SimpleNamespace, rows: list[str], expected: str | None) -> None:
    for row in rows:
        databases.shared.execute(f"INSERT INTO {row}")
    assert activateifneeded.needed(databases.directory) == expected


def test_one_that_listens_is_needed(databases: SimpleNamespace) -> None:
    databases.local.execute("INSERT INTO config (key, value) VALUES ('core.https_address', '[::]:8443')")
    assert activateifneeded.needed(databases.directory) == LISTENS


def test_a_new_host_needs_no_daemon(home: Path) -> None:
    assert main.dispatch("atolld", ["activateifneeded"]) == 0


def test_groups() -> None:
    assert daemon.choose_group("root") == "root"
    assert daemon.choose_group("") in ("atoll", "root")
    with pytest.raises(CommandError, match='The group "no-such-group" does not exist'):
        daemon.choose_group("no-such-group")


def test_the_daemon_is_given_its_options(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[SimpleNamespace] = []
    bootstrap = SimpleNamespace(Options=SimpleNamespace, serve=served.append)
    monkeypatch.setitem(sys.modules, "atoll.runtime.bootstrap", bootstrap)
    monkeypatch.setattr(runtime, "bootstrap", bootstrap, raising=False)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setenv("ATOLL_INSTANCE_DRIVER", "sim")
    monkeypatch.chdir(home)
    assert main.dispatch("atolld", ["--logfile", "a.log", "--verbose", "--group", "root", "--trace", "database"]) == 0
    given = {"state_dir": home, "group": "root", "log_file": home / "a.log", "log_level": "info", "driver": "sim"}
    assert vars(served[0]) == given


def test_the_daemon_needs_root(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(CommandError, match="This must be run as root"):
        main.dispatch("atolld", [])


def test_log_levels() -> None:
    assert daemon.log_level(debug=True, verbose=True) == "debug"
    assert daemon.log_level(debug=False, verbose=True) == "info"
    assert daemon.log_level(debug=False, verbose=False) == "warning"
