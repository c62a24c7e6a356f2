"""Backups between Atoll and the real LXD 5.0, imports that a kill cuts off, and recovery of what runs."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import lxd_server  # found through conftest's path
import pytest
from box import SECONDS, Daemon, wait_until
from lxd_server import Lxd

pytestmark = pytest.mark.system


@pytest.fixture
def lxd(machines: Daemon, tmp_path: Path) -> Iterator[Lxd]:
    """A real LXD; its files are where guests can reach them."""
    if lxd_server.PROGRAM is None:
        pytest.skip("LXD is not installed")
    folder = machines.state.parent / "other"
    folder.mkdir()
    with lxd_server.running(folder) as server:
        yield server
    shutil.rmtree(folder)


def fill(run: list[str], server: Daemon | Lxd) -> None:
    """An instance `c1` with snapshots s0, s1, each with a file more than the one before; and owners, links, capabilities."""

    def inside(*argv: str) -> None:
        server.run(*run, "exec", "c1", "--", *argv)

    inside("touch", "/root/one")
    server.run(*run, "snapshot", "c1", "s0")
    inside("sh", "-c", "touch /root/two && mkdir -p /home/u && chown 1000:33 /home/u && ln /root/one /root/link")
    server.run(*run, "snapshot", "c1", "s1")
    inside("touch", "/root/three")


def check(run: list[str], server: Daemon | Lxd, name: str) -> None:
    """It runs and is what `fill` made."""

    def inside(*argv: str) -> list[str]:
        return server.run(*run, "exec", name, "--", *argv).split()

    assert inside("ls", "/root") == ["link", "one", "three", "two"]
    assert inside("stat", "-c", "%u %g", "/home/u", "/", "/bin/busybox") == ["1000", "33", "0", "0", "0", "0"]
    assert inside("stat", "-c", "%h", "/root/link") == ["2"]


def test_archives_go_both_ways(machines: Daemon, lxd: Lxd, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.tar.gz", tmp_path / "theirs.tar"
    machines.run("atoll", "launch", "tiny", "c1")
    fill(["atoll"], machines)
    machines.run("atoll", "export", "c1", str(ours))

    lxd.run("lxc", "import", str(ours))
    lxd.run("lxc", "start", "c1")  # from here on its files have the host's ids, those of its snapshots have not
    check(["lxc"], lxd, "c1")
    lxd.run("lxc", "snapshot", "c1", "s2")
    lxd.run("lxc", "export", "c1", str(theirs), "--compression", "none")
    lxd.run("lxc", "restore", "c1", "s0")
    assert lxd.run("lxc", "exec", "c1", "--", "ls", "/root").split() == ["one"]

    machines.run("atoll", "import", str(theirs), "c2")
    machines.run("atoll", "start", "c2")
    check(["atoll"], machines, "c2")
    for snapshot, files in (("s1", "link one two"), ("s0", "one"), ("s2", "link one three two")):
        machines.run("atoll", "restore", "c2", snapshot)
        assert machines.inside("c2", "ls", "/root").split() == files.split()
    assert not [path for path in (machines.state / "backups").iterdir() if path.name not in ("custom", "instances")]


def test_archives_of_volumes_go_both_ways(machines: Daemon, lxd: Lxd, tmp_path: Path) -> None:
    """There an instance uses the volume, so that its files have the host's ids."""
    instance, ours, theirs = tmp_path / "c1.tar", tmp_path / "ours.tar.gz", tmp_path / "theirs.tar"
    machines.run("atoll", "init", "tiny", "c1")
    machines.run("atoll", "export", "c1", str(instance), "--compression", "none")
    volume = ("atoll", "storage", "volume")
    machines.run(*volume, "create", "default", "v1", "user.a=then")
    data = machines.state / "storage-pools/default/custom/default_v1"
    (data / "file").write_text("one")
    os.chown(data / "file", 1000, 33)
    machines.run(*volume, "snapshot", "default", "v1", "s0")
    machines.run(*volume, "set", "default", "v1", "user.a=now")
    machines.run(*volume, "export", "default", "v1", str(ours))
    exchange_disk(machines, lxd, tmp_path)

    lxd.run("lxc", "import", str(instance))
    lxd.run("lxc", "storage", "volume", "import", "p", str(ours))
    assert lxd.run("lxc", "storage", "volume", "get", "p", "v1/s0", "user.a") == "then\n"
    lxd.run("lxc", "storage", "volume", "attach", "p", "v1", "c1", "/data")
    lxd.run("lxc", "start", "c1")
    assert lxd.run("lxc", "exec", "c1", "--", "stat", "-c", "%u %g", "/data/file") == "1000 33\n"
    lxd.run("lxc", "exec", "c1", "--", "sh", "-c", "echo -n two > /data/file")
    lxd.run("lxc", "storage", "volume", "snapshot", "p", "v1", "s1")
    lxd.run("lxc", "storage", "volume", "export", "p", "v1", str(theirs), "--compression", "none")

    machines.run(*volume, "import", "default", str(theirs), "v2")
    assert machines.run(*volume, "get", "default", "v2", "user.a") == "now\n"
    snapshots = "custom-snapshots/default_v2"
    for folder, text in (("custom/default_v2", "two"), (f"{snapshots}/s0", "one"), (f"{snapshots}/s1", "two")):
        file = machines.state / "storage-pools/default" / folder / "file"
        assert (file.read_text(), file.stat().st_uid, file.stat().st_gid) == (text, 1000, 33)
    for name in ("v1", "v2"):
        machines.run(*volume, "delete", "default", name)


def exchange_disk(machines: Daemon, lxd: Lxd, tmp_path: Path) -> None:
    """A disk goes there and comes back: packed there with all its zeros, it takes no more space here than before."""
    ours, theirs = tmp_path / "disk.tar.gz", tmp_path / "theirs.tar.gz"
    volume = ("storage", "volume")
    machines.run("atoll", *volume, "create", "default", "disk", "--type=block", "size=64MiB")
    file = machines.state / "storage-pools/default/custom/default_disk/root.img"
    with file.open("r+b") as disk:
        disk.write(b"one")
        disk.flush()
        machines.run("atoll", *volume, "snapshot", "default", "disk", "s0")
        disk.seek(32 << 20)
        disk.write(b"two")
    machines.run("atoll", *volume, "export", "default", "disk", str(ours))
    assert ours.stat().st_size < 1 << 20
    lxd.run("lxc", *volume, "import", "p", str(ours))
    assert "content_type: block" in lxd.run("lxc", *volume, "show", "p", "disk/s0")
    lxd.run("lxc", *volume, "export", "p", "disk", str(theirs))
    machines.run("atoll", *volume, "import", "default", str(theirs), "back")
    pool, now = machines.state / "storage-pools/default", file.read_bytes()
    for name in ("disk", "back"):
        for where, wanted in (("custom", now), ("custom-snapshots", b"one".ljust(len(now), b"\0"))):
            found = pool / where / f"default_{name}" / ("root.img" if where == "custom" else "s0/root.img")
            assert found.read_bytes() == wanted and found.stat().st_blocks < 4096
    for name in ("disk", "back"):
        machines.run("atoll", *volume, "delete", "default", name)


@pytest.fixture
def btrfs(machines: Daemon) -> Iterator[str]:
    """A pool of driver btrfs; afterwards it is gone, with the instances in it."""
    machines.run("atoll", "storage", "create", "fast", "btrfs", "size=1GiB")
    yield "fast"
    for (name,) in machines.listed("n"):
        machines.run("atoll", "delete", "--force", name)
    machines.run("atoll", "storage", "delete", "fast")


def test_an_optimized_backup_is_streams(machines: Daemon, btrfs: str, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    machines.run("atoll", "launch", "tiny", "c1", "--storage", btrfs)
    fill(["atoll"], machines)
    machines.run("atoll", "export", "c1", str(archive), "--optimized-storage")
    with tarfile.open(archive) as packed:
        names = packed.getnames()
    assert names[:2] == ["backup/index.yaml", "backup/optimized_header.yaml"]
    assert names[2:] == ["backup/snapshots/s0.bin", "backup/snapshots/s1.bin", "backup/container.bin"]
    machines.run("atoll", "import", str(archive), "c2")
    machines.run("atoll", "start", "c2")
    check(["atoll"], machines, "c2")
    machines.run("atoll", "restore", "c2", "s0")
    assert machines.inside("c2", "ls", "/root") == "one"
    done = machines.try_("atoll", "import", str(archive), "c3", "--storage", "default")
    assert done.returncode != 0 and "differs from the target storage pool driver" in done.stderr


def test_an_import_that_a_kill_cuts_off_is_gone_after_the_start(machines: Daemon, tmp_path: Path) -> None:
    machines.run("atoll", "launch", "tiny", "c1")
    fill(["atoll"], machines)
    machines.run("atoll", "exec", "c1", "--", "dd", "if=/dev/urandom", "of=/root/big", "bs=1M", "count=24")
    archive = tmp_path / "a.tar"
    machines.run("atoll", "export", "c1", str(archive), "--compression", "none")
    machines.run("atoll", "delete", "--force", "c1")
    before = _volumes(machines)
    for seen in (".import-*/upload", ".import-*/volume"):
        while not cut_off(machines, archive, seen):
            assert len(machines.query("/1.0/instances/c1/snapshots")) == 2
            machines.run("atoll", "delete", "c1")
        assert sorted(os.listdir(machines.state / "backups")) == ["custom", "instances"]
        assert _volumes(machines) == before
    machines.run("atoll", "import", str(archive))
    assert len(machines.query("/1.0/instances/c1/snapshots")) == 2


def cut_off(machines: Daemon, archive: Path, seen: str) -> bool:
    """Kill the daemon during an import, once such a file is there. False if it was over by then: there is an instance."""
    client = machines.begin("atoll", "import", str(archive))
    backups = machines.state / "backups"
    wait_until(lambda: list(backups.glob(seen)) or client.poll() is not None, f"the import has come to {seen}")
    machines.kill()
    client.wait(SECONDS)
    machines.start()
    return machines.query("/1.0/instances") == []


def _volumes(daemon: Daemon) -> list[str]:
    pools = daemon.state / "storage-pools"
    return sorted(str(path.relative_to(pools)) for path in pools.glob("*/container*/*"))


def test_a_running_instance_is_recovered(machines: Daemon) -> None:
    machines.run("atoll", "launch", "tiny", "c1")
    machines.run("atoll", "snapshot", "c1", "s0")
    folder = machines.state / "containers" / "c1"
    described = folder / "backup.yaml"  # written a moment after what it tells of
    wait_until(lambda: described.is_file() and "name: s0" in described.read_text(), "the snapshot is described")
    pid = machines.init_pid("c1")
    for table in ("instances", "storage_volumes"):
        machines.run("atolld", "sql", "global", f"DELETE FROM {table} WHERE name = 'c1'")
    assert machines.query("/1.0/instances") == []
    said = machines.run("atolld", "recover", stdin="no\nyes\nyes\n")
    assert 'Container "c1" on pool "default" in project "default" (includes 1 snapshots)' in said
    assert machines.init_pid("c1") == pid and machines.inside("c1", "hostname") == "c1"
    assert "Nothing to do" in machines.run("atolld", "recover", stdin="no\nyes\n")
    machines.run("atoll", "stop", "--force", "c1")
    machines.run("atoll", "restore", "c1", "s0")
    machines.run("atoll", "start", "c1")
    assert json.loads(machines.run("atoll", "query", "/1.0/instances/c1"))["status"] == "Running"
