"""Custom volumes as wholes on real pools: the files of copies, moves, backups, and what a kill in between leaves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from box import SECONDS, Daemon, wait_until  # found through conftest's path

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
    started_and_killed(host, "atoll", "storage", "volume", "move", "default/v", "trees/v")
    (pool,) = {pool for pool in POOLS if host.query(f"/1.0/storage-pools/{pool}/volumes/custom")}
    assert states(host, pool, "v") == wanted


def disk(daemon: Daemon, pool: str, name: str, snapshot: str = "") -> Path:
    """The file that is a disk."""
    return data(daemon, pool, name, snapshot) / "root.img"


def write(path: Path, position: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        file.write(content)


def test_a_disk_goes_through_all_pools_and_a_file_and_takes_no_more_space(host: Daemon, tmp_path: Path) -> None:
    volume(host, "create", "default", "v", "--type=block")
    for number, snapshot in enumerate(("one", "two", "")):
        write(disk(host, "default", "v"), (number + 1) << 30, b"x" * 100_000)
        if snapshot:
            volume(host, "snapshot", "default", "v", snapshot)
    volume(host, "copy", "default/v", "plain/v")
    volume(host, "copy", "plain/v", "trees/v")
    volume(host, "copy", "trees/v", "trees/within")
    volume(host, "move", "plain/v", "trees/moved")
    for pool, name, flags in (("default", "v", ()), ("trees", "moved", ("--optimized-storage",))):
        file = str(tmp_path / f"{pool}.tar")
        volume(host, "export", pool, name, file, "--compression", "none", *flags)
        assert Path(file).stat().st_size < 2 << 20
        volume(host, "import", "trees", file, f"from-{pool}")
    for name in ("v", "within", "moved", "from-default", "from-trees"):
        for number, snapshot in enumerate(("one", "two", "")):
            found = disk(host, "trees", name, snapshot)
            with found.open("rb") as file:
                read = [os.pread(file.fileno(), 5, place << 30) for place in (1, 2, 3)]
            assert read == [b"x" * 5 if place <= number + 1 else bytes(5) for place in (1, 2, 3)]
            assert (found.stat().st_size, found.stat().st_blocks < 4096) == (10 << 30, True)


def test_a_kill_leaves_disks_whole_or_not_at_all(host: Daemon, tmp_path: Path) -> None:
    volume(host, "create", "plain", "v", "--type=block", "size=128MiB")
    content = os.urandom(1 << 20)
    for number in range(64):
        write(disk(host, "plain", "v"), number << 21, content)
    volume(host, "snapshot", "plain", "v", "s")
    backup = tmp_path / "v.tar"
    volume(host, "export", "plain", "v", str(backup), "--compression", "none")
    for words in ("restore plain v s", "copy plain/v trees/w", f"import plain {backup} x"):
        started_and_killed(host, "atoll", "storage", "volume", *words.split())
        for pool in POOLS:
            listed = host.query(f"/1.0/storage-pools/{pool}/volumes/custom?recursion=1")
            folders = {path.name for path in (inside_box(host) / pool / "custom").iterdir()}
            assert folders == {f"default_{each['name']}" for each in listed if "/" not in each["name"]}
            for each in listed:
                found = disk(host, pool, *each["name"].split("/"))
                with found.open("rb") as file:
                    assert file.read(1 << 20) == content
                assert found.stat().st_size == 128 << 20
                assert found.stat().st_blocks >= (64 << 20) / 512


def started_and_killed(host: Daemon, *words: str) -> None:
    """A command during which the daemon is killed, once something is being made in a pool; and the next daemon."""
    client = host.begin(*words)
    aside = [inside_box(host) / pool / ".aside" for pool in POOLS]
    wait_until(lambda: any(list(path.iterdir()) for path in aside) or client.poll() is not None, "something is being made")
    host.kill()
    client.wait(SECONDS)
    host.start()
