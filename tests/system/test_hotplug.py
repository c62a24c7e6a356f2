"""Devices that come to a running instance and leave it."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import audit
import pytest
from box import Daemon, wait_until

pytestmark = [pytest.mark.system, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def network(daemon: Daemon) -> Iterator[str]:
    daemon.run("atoll", "network", "create", "br1", "ipv4.address=10.77.0.1/24", "ipv6.address=none")
    yield "br1"
    for (name,) in daemon.listed("n"):
        daemon.run("atoll", "delete", "--force", name)
    daemon.run("atoll", "network", "delete", "br1")


def interfaces(daemon: Daemon) -> set[str]:
    return set(daemon.inside("one", "ls", "/sys/class/net").split()) - {"lo"}


def test_a_nic(one: Daemon, network: str) -> None:
    one.run("atoll", "network", "attach", network, "one", "eth1")
    assert interfaces(one) == {"eth0", "eth1"}
    one.inside("one", "udhcpc", "-i", "eth1", "-n", "-q", "-t", "20", "-s", "/etc/udhcpc.script")
    assert one.address("one", nic="eth1").startswith("10.77.0.")
    audit.check(one)
    one.run("atoll", "network", "detach", network, "one", "eth1")
    assert interfaces(one) == {"eth0"}
    audit.check(one)


def test_a_nic_under_another_name(one: Daemon, network: str) -> None:
    one.run("atoll", "config", "device", "add", "one", "second", "nic", f"network={network}", "name=lan0")
    assert interfaces(one) == {"eth0", "lan0"}
    hwaddr = one.query("/1.0/instances/one")["config"]["volatile.second.hwaddr"]
    assert one.inside("one", "cat", "/sys/class/net/lan0/address") == hwaddr
    one.run("atoll", "config", "device", "set", "one", "second", "name=lan1")
    assert interfaces(one) == {"eth0", "lan1"}
    audit.check(one)


def test_a_nic_of_a_profile_whose_change_was_cut_off(one: Daemon, network: str) -> None:
    one.run("atoll", "profile", "create", "late")
    one.run("atoll", "profile", "add", "one", "late")
    one.kill()  # right after the profile was written
    nic = {"type": "nic", "network": network, "name": "eth1"}
    with closing(sqlite3.connect(one.dir / "database/global/db.bin")) as database, database:
        (profile,) = database.execute("SELECT id FROM profiles WHERE name = 'late'").fetchone()
        device = database.execute("INSERT INTO profiles_devices (profile_id, name) VALUES (?, 'second')", (profile,)).lastrowid
        sql = "INSERT INTO profiles_devices_config (profile_device_id, key, value) VALUES (?, ?, ?)"
        database.executemany(sql, [(device, key, value) for key, value in nic.items()])
    one.start()
    wait_until(lambda: interfaces(one) == {"eth0", "eth1"}, "the NIC is there")
    wait_until(lambda: "volatile.second.host_name" in one.query("/1.0/instances/one")["config"], "it is known")
    one.run("atoll", "profile", "remove", "one", "late")
    assert interfaces(one) == {"eth0"}
    one.run("atoll", "profile", "delete", "late")
    audit.check(one)


def test_the_limit_of_a_nic(one: Daemon) -> None:
    one.run("atoll", "config", "device", "override", "one", "eth0", "limits.ingress=10Mbit")
    host_name = one.query("/1.0/instances/one")["config"]["volatile.eth0.host_name"]
    assert "rate 10Mbit" in one.run("tc", "class", "show", "dev", host_name)
    one.run("atoll", "config", "device", "set", "one", "eth0", "limits.ingress=20Mbit")
    assert "rate 20Mbit" in one.run("tc", "class", "show", "dev", host_name)


def test_a_folder_of_the_host(one: Daemon) -> None:
    source = one.dir.parent / "data"
    source.mkdir()
    (source / "file").write_text("text")
    one.run("atoll", "config", "device", "add", "one", "data", "disk", f"source={source}", "path=/srv/data", "readonly=true")
    assert one.inside("one", "cat", "/srv/data/file") == "text"
    assert "Read-only" in one.try_("atoll", "exec", "one", "--", "touch", "/srv/data/x").stderr
    one.run("atoll", "config", "device", "remove", "one", "data")
    assert "data" not in one.inside("one", "ls", "/srv").split()  # nor is the empty place left
    audit.check(one)


def test_a_shifted_folder_of_the_host(one: Daemon) -> None:
    """What root of the guest writes is root's on the host."""
    source = one.dir.parent / "shifted"
    source.mkdir()
    one.run("atoll", "config", "device", "add", "one", "data", "disk", f"source={source}", "path=/data", "shift=true")
    one.inside("one", "sh", "-c", "echo text > /data/file")
    assert ((source / "file").read_text(), (source / "file").stat().st_uid) == ("text\n", 0)


def test_a_volume(one: Daemon) -> None:
    """Shared by two instances, and kept when both are gone."""
    one.run("atoll", "launch", "tiny", "two")
    one.run("atoll", "storage", "volume", "create", "default", "shared")
    for name in ("one", "two"):
        one.run("atoll", "storage", "volume", "attach", "default", "shared", name, "/shared")
    one.inside("one", "sh", "-c", "echo text > /shared/file")
    assert one.inside("two", "cat", "/shared/file") == "text"
    assert one.try_("atoll", "storage", "volume", "delete", "default", "shared").returncode == 1
    one.run("atoll", "storage", "volume", "detach", "default", "shared", "two")
    assert "shared" not in one.inside("two", "ls", "/").split()
    one.run("atoll", "delete", "--force", "one", "two")
    one.run("atoll", "storage", "volume", "delete", "default", "shared")


def test_a_device_that_cannot_be_added_changes_nothing(one: Daemon) -> None:
    failed = one.try_("atoll", "config", "device", "add", "one", "data", "disk", "source=/nothing/here", "path=/data")
    assert failed.returncode == 1
    assert "Missing source path '/nothing/here'" in failed.stderr
    assert one.query("/1.0/instances/one")["devices"] == {}
    audit.check(one)


def test_a_change_that_fails_half_way_is_taken_back(one: Daemon) -> None:
    """The second device cannot be added: the first one goes again, and the one that was removed comes back."""
    source = one.dir.parent / "half"
    source.mkdir()
    one.run("atoll", "config", "device", "add", "one", "old", "disk", f"source={source}", "path=/old")
    devices = {
        "a": {"type": "disk", "source": str(source), "path": "/a"},
        "b": {"type": "disk", "source": "/nothing/here", "path": "/b"},
        "eth1": {"type": "nic", "network": "atollbr0", "name": "eth1"},
    }
    record = {**one.query("/1.0/instances/one"), "devices": devices}
    failed = one.try_("atoll", "query", "--wait", "-X", "PUT", "-d", json.dumps(record), "/1.0/instances/one")
    assert failed.returncode == 1
    mounts = one.inside("one", "cat", "/proc/mounts")
    assert " /old " in mounts
    assert " /a " not in mounts
    assert interfaces(one) == {"eth0"}
    audit.check(one)


def test_devices_are_there_after_the_guest_reboots(one: Daemon) -> None:
    """So are limits that were set since it started."""
    source = one.dir.parent / "kept"
    source.mkdir()
    one.run("atoll", "config", "device", "add", "one", "data", "disk", f"source={source}", "path=/data")
    one.run("atoll", "config", "set", "one", "limits.memory=64MiB")
    before = one.init_pid("one")
    one.run("atoll", "exec", "one", "--", "reboot", "-f")
    wait_until(lambda: one.init_pid("one") not in (before, 0, -1), "it is up again")
    audit.check(one)
    assert " /data " in one.inside("one", "cat", "/proc/mounts")
    assert "MemTotal:          65536 kB" in one.inside("one", "cat", "/proc/meminfo")
