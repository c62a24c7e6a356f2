"""Copies, refreshed copies and moves of real containers: the files, their owners, and what a kill in between leaves."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import audit
import pytest
from box import SECONDS, Daemon, wait_until

pytestmark = [pytest.mark.system, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

WITNESS = "witness"
CHANGES = """
    echo one > /root/file; ln /root/file /root/link; chown 1000:1000 /root/file; chmod 4711 /root/file
    mkdir -p /root/deep/er; mkfifo /root/fifo; ln -s /etc/shadow /root/symlink; rm -f /etc/doomed
"""
LOOK = "stat -c '%n %u %g %a %h %F' /root/file /root/link /root/fifo /root/symlink /root/deep; cat /root/file"
AFTER = "echo two > /root/new; rm -r /root/deep; mv /root/fifo /root/pipe"
LOOK_AFTER = "cat /root/new /root/file; ls /root"


@pytest.fixture(scope="module")
def pools(daemon: Daemon) -> Daemon:
    """A pool of another driver beside the default one, and an instance that runs all the time."""
    daemon.run("atoll", "storage", "create", "plain", "dir")
    daemon.run("atoll", "launch", "tiny", WITNESS)
    return daemon


@pytest.fixture
def machines(pools: Daemon) -> Iterator[Daemon]:
    """Nothing before and after the test; audited."""
    yield pools
    for name in names(pools):
        pools.run("atoll", "delete", "--force", name)
    audit.check(pools)


def names(daemon: Daemon) -> set[str]:
    """Instances but the one that is always there."""
    return {name for (name,) in daemon.listed("n")} - {WITNESS}


def require_consistent(daemon: Daemon) -> None:
    """What is in the pools is what the database has."""
    expected: dict[str, set[str]] = {"default": set(), "plain": set()}
    for found in daemon.query("/1.0/instances?recursion=2"):
        own = expected[found["expanded_devices"]["root"]["pool"]]
        own.add(f"containers/{found['name']}")
        own.update(f"containers-snapshots/{found['name']}/{each['name']}" for each in found["snapshots"] or ())
    for pool, wanted in expected.items():
        folder = daemon.dir / "storage-pools" / pool
        there = [*folder.glob("containers/*"), *folder.glob("containers-snapshots/*/*")]
        assert {str(path.relative_to(folder)) for path in there} == wanted
        assert list((folder / ".aside").iterdir()) == []


def shell(daemon: Daemon, name: str, script: str) -> str:
    return daemon.inside(name, "sh", "-c", script)


def test_a_running_instance_with_snapshots_within_and_to_another_pool(machines: Daemon) -> None:
    machines.run("atoll", "launch", "tiny", "c1")
    shell(machines, "c1", CHANGES)
    before = shell(machines, "c1", LOOK)
    machines.run("atoll", "snapshot", "c1", "s0")
    shell(machines, "c1", AFTER)
    machines.run("atoll", "snapshot", "c1", "s1")
    machines.run("atoll", "copy", "c1", "within")
    machines.run("atoll", "copy", "c1", "across", "--storage", "plain")
    machines.run("atoll", "copy", "across/s1", "back", "--storage", "default")
    machines.run("atoll", "delete", "--force", "c1")
    for name in ("within", "across", "back"):
        machines.run("atoll", "start", name)
        assert shell(machines, name, LOOK_AFTER) == "two\none\nfile\nlink\nnew\npipe\nsymlink"
        assert machines.inside(name, "hostname") == name
    for name in ("within", "across"):
        machines.run("atoll", "restore", name, "s0")
        assert shell(machines, name, LOOK) == before
    addresses = [machines.query(f"/1.0/instances/{name}")["config"]["volatile.eth0.hwaddr"] for name in ("within", "across")]
    assert len(set(addresses)) == 2


@pytest.mark.parametrize("pool", ["default", "plain"])
def test_a_refresh_brings_what_changed(machines: Daemon, pool: str) -> None:
    machines.run("atoll", "launch", "tiny", "c1")
    machines.run("atoll", "copy", "c1", "c2", "--storage", pool)
    shell(machines, "c1", CHANGES)
    before = shell(machines, "c1", LOOK)
    machines.run("atoll", "snapshot", "c1", "s0")
    shell(machines, "c1", AFTER)
    machines.run("atoll", "copy", "c1", "c2", "--refresh")
    machines.run("atoll", "start", "c2")
    assert shell(machines, "c2", LOOK_AFTER) == shell(machines, "c1", LOOK_AFTER)
    machines.run("atoll", "restore", "c2", "s0")
    assert shell(machines, "c2", LOOK) == before


def test_a_move_there_and_back(machines: Daemon) -> None:
    machines.run("atoll", "launch", "tiny", "c1")
    shell(machines, "c1", CHANGES)
    machines.run("atoll", "snapshot", "c1", "s0")
    before, address = shell(machines, "c1", LOOK), machines.query("/1.0/instances/c1")["config"]["volatile.eth0.hwaddr"]
    machines.run("atoll", "stop", "--force", "c1")
    machines.run("atoll", "move", "c1", "c2", "--storage", "plain")
    machines.run("atoll", "move", "c2", "--storage", "default")
    machines.run("atoll", "start", "c2")
    assert shell(machines, "c2", LOOK) == before
    assert machines.query("/1.0/instances/c2")["config"]["volatile.eth0.hwaddr"] == address
    machines.run("atoll", "restore", "c2", "s0")


def test_an_ephemeral_copy_goes_when_it_stops_even_while_nobody_looks(machines: Daemon) -> None:
    machines.run("atoll", "init", "tiny", "c1")
    machines.run("atoll", "snapshot", "c1", "s0")
    for name in ("c2", "c3"):
        machines.run("atoll", "copy", "c1", name, "--ephemeral")
        machines.run("atoll", "start", name)
    machines.run("atoll", "stop", "--force", "c2")
    pid = machines.init_pid("c3")
    machines.kill()
    machines.run("kill", "-KILL", str(pid))
    machines.start()
    wait_until(lambda: names(machines) == {"c1"}, "c3 is gone")


COMMANDS = {
    "copy": "copy x y",
    "copy-across": "copy x y --storage plain",
    "refresh": "copy x z --refresh",
    "move": "move x y --storage plain",
}


@pytest.mark.parametrize(
    ("what", "seconds"), [("copy", 0.06), ("copy-across", 0.12), ("refresh", 0.08), ("move", 0.06), ("move", 0.12)]
)
def test_killed_on_the_way(machines: Daemon, what: str, seconds: float) -> None:
    """Where it is afterwards it is whole: it starts, and each snapshot can be restored."""
    for command in ("init tiny x", "snapshot x s0", "copy x z --storage plain", "snapshot x s1"):
        machines.run("atoll", *command.split())
    client = machines.begin("atoll", *COMMANDS[what].split())
    time.sleep(seconds)
    machines.kill()
    client.wait(SECONDS)
    machines.start()
    require_consistent(machines)
    found = names(machines)
    assert found in ({"x", "z"}, {"x", "y", "z"}, {"y", "z"})
    for name in found:
        for snapshot in machines.query(f"/1.0/instances/{name}/snapshots"):
            machines.run("atoll", "restore", name, snapshot.rpartition("/")[2])
        machines.run("atoll", "start", name)
        assert machines.inside(name, "hostname") == name
