"""One whole Debian, as `scripts/launch` starts it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import audit
import pytest
from box import Daemon, wait_until

pytestmark = [pytest.mark.system, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture(scope="module")
def first(daemon: Daemon, debian_image: Path) -> Iterator[Daemon]:
    """It runs."""
    daemon.run("atoll", "image", "import", str(debian_image), "--alias", "debian/12")
    daemon.run("atoll", "launch", "debian/12", "first")
    yield daemon
    daemon.run("atoll", "delete", "--force", "first")


def test_it_comes_up(first: Daemon) -> None:
    assert (
        wait_until(lambda: _state(first) not in ("", "starting", "initializing") and _state(first), "systemd is up") == "running"
    )
    assert first.inside("first", "cat", "/proc/1/comm") == "systemd"
    assert first.inside("first", "hostname") == "first"
    assert "VERSION_CODENAME=bookworm" in first.inside("first", "cat", "/etc/os-release")
    assert first.inside("first", "systemctl", "--failed", "--quiet") == ""


def _state(daemon: Daemon) -> str:
    return daemon.try_("atoll", "exec", "first", "--", "systemctl", "is-system-running", "--wait").stdout.strip()


def test_it_has_addresses_and_finds_names(first: Daemon) -> None:
    address = first.address("first")
    assert first.address("first", version=6)
    asked = ("atoll", "exec", "first", "--", "resolvectl", "query", "--legend=no", "-4", "first.lxd")
    wait_until(lambda: address in first.try_(*asked).stdout, "it knows its own name")
    assert "1 received" in first.inside("first", "ping", "-4", "-c", "1", "-W", "20", "_gateway")


def test_it_has_an_identity_of_its_own(first: Daemon) -> None:
    first.run("atoll", "launch", "debian/12", "other")
    try:
        wait_until(lambda: first.try_("atoll", "exec", "other", "--", "test", "-s", "/etc/machine-id").returncode == 0, "an id")
        ids = {first.inside(name, "cat", "/etc/machine-id") for name in ("first", "other")}
        assert len(ids) == 2
    finally:
        first.run("atoll", "delete", "--force", "other")


def test_it_powers_off_and_starts_again(first: Daemon) -> None:
    first.run("atoll", "stop", "first")
    audit.check(first)
    first.run("atoll", "start", "first")
    wait_until(lambda: _state(first) == "running", "systemd is up")
    before = first.init_pid("first")
    first.try_("atoll", "exec", "first", "--", "reboot")
    wait_until(lambda: first.init_pid("first") not in (before, 0, -1), "it has rebooted")
    wait_until(lambda: _state(first) == "running", "systemd is up again")
    audit.check(first)
