"""waitready, shutdown, activateifneeded and the daemon's options."""

from __future__ import annotations

import sqlite3
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from atoll import runtime
from atoll.cli.errors import CommandError
from atoll.client.errors import ClientError
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
    assert main.dispatch("atolld", ["waitready", "-t", "5"]) == 0


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


def _database(path: Path, table: str, *rows: tuple[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(path) as connection:
        connection.execute(f"CREATE TABLE {table} (key TEXT, value TEXT)")
        connection.executemany(f"INSERT INTO {table} VALUES (?, ?)", rows)
    connection.close()


@pytest.mark.parametrize(
    ("local", "instances", "expected"),
    [
        ([], [], False),
        ([("core.https_address", "[::]:8443")], [], True),
        ([("core.https_address", "")], [("volatile.last_state.power", "STOPPED")], False),
        ([], [("volatile.last_state.power", "RUNNING")], True),
        ([], [("boot.autostart", "true")], True),
        ([], [("boot.autostart", "false")], False),
    ],
)
def test_whether_a_daemon_is_needed(
    tmp_path: Path, local: list[tuple[str, str]], instances: list[tuple[str, str]], expected: bool
) -> None:
    _database(Paths(tmp_path).local_database, "config", *local)
    _database(Paths(tmp_path).global_database, "instances_config", *instances)
    assert activateifneeded.needed(tmp_path) is expected


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
