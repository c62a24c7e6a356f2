"""A pool on btrfs with containers that run: sizes, nested subvolumes, streams between pools, a daemon that is killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from box import Daemon, wait_until  # found through conftest's path

pytestmark = [pytest.mark.system, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture(scope="module")
def pools(daemon: Daemon) -> Daemon:
    """The daemon with the pools `one` and `two`, in loop files."""
    for name in ("one", "two"):
        made = daemon.try_("atoll", "storage", "create", name, "btrfs", "size=1GiB")
        if "has no btrfs" in made.stderr:
            pytest.skip("no btrfs here")
        assert made.returncode == 0, made.stderr
    return daemon


@pytest.fixture
def host(pools: Daemon) -> Iterator[Daemon]:
    """Without instances before and after the test, and then without anything aside in the pools."""
    yield pools
    for (name,) in pools.listed("n"):
        pools.run("atoll", "delete", "--force", name)
    for pool in ("one", "two"):
        wait_until(
            lambda pool=pool: {path.partition("/")[0] for path in subvolumes(pools, pool)} <= {"images"}, "all are deleted"
        )


def root(daemon: Daemon, name: str, pool: str = "one") -> Path:
    """An instance's root, as the box sees it."""
    return daemon.state / "storage-pools" / pool / "containers" / name / "rootfs"


def subvolumes(daemon: Daemon, pool: str) -> list[str]:
    """Paths of all subvolumes of a pool."""
    lines = daemon.run("btrfs", "subvolume", "list", str(daemon.state / "storage-pools" / pool)).splitlines()
    return [line.partition(" path ")[2] for line in lines]


def make_nested(daemon: Daemon, name: str, *, readonly: bool = False) -> None:
    """A subvolume /nested with a file in the root of an instance, as its guest would make it."""
    place = str(root(daemon, name) / "nested")
    daemon.run("btrfs", "subvolume", "create", place)
    daemon.inside(name, "sh", "-c", "echo nested >/nested/file")
    if readonly:
        daemon.run("btrfs", "property", "set", place, "ro", "true")


def test_snapshot_copy_restore_and_delete_of_what_runs(host: Daemon) -> None:
    host.run("atoll", "launch", "tiny", "c1", "--storage", "one")
    make_nested(host, "c1", readonly=True)
    pid = host.init_pid("c1")
    host.run("atoll", "snapshot", "c1", "s0")
    host.inside("c1", "sh", "-c", "echo later >/later")
    host.run("atoll", "copy", "c1", "c2")
    host.run("atoll", "copy", "c1", "c3", "--storage", "two")
    assert host.init_pid("c1") == pid
    for name in ("c2", "c3"):
        host.run("atoll", "start", name)
        assert host.inside(name, "cat", "/nested/file", "/later") == "nested\nlater"
        assert host.try_("atoll", "exec", name, "--", "touch", "/nested/new").returncode != 0
        assert host.query(f"/1.0/instances/{name}/snapshots") == [f"/1.0/instances/{name}/snapshots/s0"]
    host.run("atoll", "restore", "c1", "s0")
    assert host.inside("c1", "cat", "/nested/file") == "nested"
    assert host.try_("atoll", "exec", "c1", "--", "cat", "/later").returncode != 0


def test_sizes_hold_in_the_guest(host: Daemon) -> None:
    host.run("atoll", "launch", "tiny", "c1", "--storage", "one", "--device", "root,size=32MiB")

    def fill() -> int:
        """How many MiB fit into the root."""
        host.try_("atoll", "exec", "c1", "--", "dd", "if=/dev/zero", "of=/big", "bs=1M", "count=100")
        size = int(host.inside("c1", "stat", "-c", "%s", "/big")) >> 20
        host.inside("c1", "rm", "/big")
        return size

    assert 20 <= fill() < 32
    host.run("atoll", "config", "device", "set", "c1", "root", "size=64MiB")
    assert 50 <= fill() < 64
    host.run("atoll", "config", "device", "unset", "c1", "root", "size")
    assert fill() == 100
    host.run("atoll", "storage", "volume", "create", "one", "v1", "size=16MiB")
    host.run("atoll", "storage", "volume", "attach", "one", "v1", "c1", "/mnt")
    host.try_("atoll", "exec", "c1", "--", "dd", "if=/dev/zero", "of=/mnt/big", "bs=1M", "count=100")
    assert int(host.inside("c1", "stat", "-c", "%s", "/mnt/big")) < 16 << 20
    host.run("atoll", "delete", "--force", "c1")
    host.run("atoll", "storage", "volume", "delete", "one", "v1")


def test_a_killed_daemon_finds_its_pool_and_its_machines_again(host: Daemon) -> None:
    host.run("atoll", "launch", "tiny", "c1", "--storage", "one")
    pid = host.init_pid("c1")
    host.run("atoll", "snapshot", "c1", "s0")
    aside = host.state / "storage-pools/one/.aside/tmp-left"
    host.run("btrfs", "subvolume", "create", str(aside))
    host.run("btrfs", "subvolume", "snapshot", str(aside), f"{aside}/below")
    host.kill()
    host.start()
    assert ".aside/tmp-left" not in subvolumes(host, "one")
    assert host.init_pid("c1") == pid
    host.run("atoll", "storage", "set", "one", "size", "1500MiB")
    host.inside("c1", "sh", "-c", "echo x >/x")
    host.terminate()
    host.start()
    assert (host.init_pid("c1"), host.inside("c1", "cat", "/x")) == (pid, "x")
    files = host.run("losetup", "--list", "--noheadings", "-O", "BACK-FILE")
    assert files.count(f"{host.state}/disks/one.img") == 1
    host.run("atoll", "restore", "c1", "s0")
    assert host.try_("atoll", "exec", "c1", "--", "cat", "/x").returncode != 0
