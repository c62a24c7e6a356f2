"""Custom volumes as wholes on real pools: the files of copies, moves, backups, and what a kill in between leaves."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from box import Daemon, wait_until  # found through conftest's path

pytestmark = [pytest.mark.system, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

POOLS = ("default", "plain", "trees")


@pytest.fixture(scope="module")
def pools(daemon: Daemon) -> Daemon:
    """Pools of three drivers: overlay, dir, btrfs."""
    daemon.run("atoll", "storage", "create", "plain", "dir")
    made = daemon.try_("atoll", "storage", "create", "trees", "btrfs", "size=1GiB")
    if "has no btrfs" in made.stderr:
        pytest.skip("no btrfs here")
    assert made.returncode == 0, made.stderr
    return daemon


@pytest.fixture
def host(pools: Daemon) -> Iterator[Daemon]:
    """Without volumes before and after the test, and then without anything of them in the pools."""
    yield pools
    for pool in POOLS:
        for each in pools.query(f"/1.0/storage-pools/{pool}/volumes/custom?recursion=1"):
            if "/" not in each["name"]:
                pools.run("atoll", "storage", "volume", "delete", pool, each["name"])
        for folder in ("custom", "custom-snapshots"):
            assert list((inside_box(pools) / pool / folder).iterdir()) == []
        wait_until(lambda pool=pool: not list((inside_box(pools) / pool / ".aside").iterdir()), "nothing is aside any more")


def inside_box(daemon: Daemon) -> Path:
    """The folder of pools, from outside."""
    return Path(f"/proc/{daemon.box.init}/root{daemon.state}/storage-pools")


def volume(daemon: Daemon, *words: str) -> str:
    return daemon.run("atoll", "storage", "volume", *words)


def data(daemon: Daemon, pool: str, name: str, snapshot: str = "") -> Path:
    """A volume's files; pools are mounted in the box alone."""
    folder = inside_box(daemon) / pool
    return folder / "custom-snapshots" / f"default_{name}" / snapshot if snapshot else folder / "custom" / f"default_{name}"


def look(path: Path) -> list[tuple[str, str, int, int, bool]]:
    """What is in a volume, and how its own folder is."""
    found = []
    for each in (path, *sorted(path.rglob("*"))):
        status = each.lstat()
        content = os.readlink(each) if each.is_symlink() else each.read_text() if each.is_file() else ""
        is_linked = each.is_file() and status.st_nlink > 1
        found.append((str(each.relative_to(path)), content, status.st_uid, status.st_mode, is_linked))
    return found


def states(daemon: Daemon, pool: str, name: str) -> list[object]:
    return [look(data(daemon, pool, name, snapshot)) for snapshot in ("one", "two", "")]


def make(daemon: Daemon, pool: str, name: str) -> list[object]:
    """A volume with two snapshots, whose files change within the second and keep their sizes."""
    volume(daemon, "create", pool, name)
    top = data(daemon, pool, name)
    top.chmod(0o1777)
    (top / "dev").mkdir()
    (top / "dev/file").write_text("one")
    os.chown(top / "dev/file", 1000, 1000)
    (top / "dev/file").chmod(0o4755)
    os.link(top / "dev/file", top / "link")
    (top / "symlink").symlink_to("/etc/shadow")
    for snapshot, text in (("one", "two"), ("two", "now")):
        volume(daemon, "snapshot", pool, name, snapshot)
        (top / "dev/file").write_text(text)
        (top / "dev/file").chmod(0o4755)
    return states(daemon, pool, name)


def test_a_volume_goes_through_all_pools_and_a_file_and_stays_the_same(host: Daemon, tmp_path: Path) -> None:
    wanted = make(host, "default", "v")
    for source, target in (("default", "plain"), ("plain", "trees"), ("trees", "default")):
        volume(host, "copy", f"{source}/v", f"{target}/{'v' if target != 'default' else 'w'}")
    volume(host, "copy", "trees/v", "trees/within")
    volume(host, "move", "default/w", "trees/w")
    for pool, name in (("plain", "v"), ("trees", "v"), ("trees", "within"), ("trees", "w")):
        assert states(host, pool, name) == wanted
    for pool, flags in (("plain", ()), ("trees", ("--optimized-storage",))):
        file = str(tmp_path / f"{pool}.tar")
        volume(host, "export", pool, "v", file, "--compression", "none", *flags)
        volume(host, "import", pool, file, "back")
        assert states(host, pool, "back") == wanted


def test_a_refresh_and_a_size(host: Daemon) -> None:
    make(host, "default", "v")
    volume(host, "copy", "default/v", "trees/v")
    top = data(host, "default", "v")
    (top / "link").unlink()
    (top / "new").write_text("new")
    volume(host, "delete", "default", "v/two")
    volume(host, "snapshot", "default", "v", "three")
    volume(host, "copy", "default/v", "trees/v", "--refresh")
    for snapshot in ("one", "three", ""):
        assert look(data(host, "trees", "v", snapshot)) == look(data(host, "default", "v", snapshot))
    assert not data(host, "trees", "v", "two").exists()
    volume(host, "set", "trees", "v", "size=8MiB")
    with pytest.raises(OSError, match="quota"):
        (data(host, "trees", "v") / "big").write_bytes(os.urandom(16 << 20))
    volume(host, "set", "trees", "v", "size=64MiB")
    (data(host, "trees", "v") / "big").write_bytes(os.urandom(16 << 20))


def test_what_runs_is_copied_and_cannot_move(host: Daemon) -> None:
    wanted = make(host, "default", "v")
    host.run("atoll", "launch", "tiny", "c1")
    try:
        volume(host, "attach", "default", "v", "c1", "/data")
        volume(host, "copy", "default/v", "trees/v")
        assert states(host, "trees", "v") == wanted
        assert "in use by running instances" in host.try_("atoll", "storage", "volume", "move", "default/v", "plain/v").stderr
        host.run("atoll", "stop", "--force", "c1")
        volume(host, "move", "default/v", "plain/moved")
        host.run("atoll", "start", "c1")
        assert host.inside("c1", "cat", "/data/dev/file") == "now"
    finally:
        host.run("atoll", "delete", "--force", "c1")


def test_a_killed_move_leaves_one_whole_volume(host: Daemon) -> None:
    make(host, "default", "v")
    for number in range(500):
        (data(host, "default", "v") / f"file{number}").write_text("many take a while")
    wanted = states(host, "default", "v")
    command = [host.program("atoll"), "storage", "volume", "move", "default/v", "trees/v"]
    client = subprocess.Popen(host.box.enter(command), env=host.env(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    aside = inside_box(host) / "trees/.aside"
    wait_until(lambda: list(aside.iterdir()) or client.poll() is not None, "the copy is being made")
    host.kill()
    client.wait(10)
    host.start()
    (pool,) = {pool for pool in POOLS if host.query(f"/1.0/storage-pools/{pool}/volumes/custom")}
    assert states(host, pool, "v") == wanted
