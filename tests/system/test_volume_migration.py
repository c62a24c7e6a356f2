"""Custom volumes between servers: Atoll, LXD 5.0 and Atoll again; and what a kill in between leaves."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import lxd_server  # found through conftest's path
import pytest
from box import SECONDS, Daemon, wait_until

pytestmark = [pytest.mark.system, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

SHIFT = 1_000_000
HOUR = 3600 * 10**9
AGES = {"one": 3, "two": 2, "three": 1}
"""Of what each step makes, in hours: to LXD's rsync, what was changed within the same second was changed at the same time."""


@dataclass(frozen=True)
class Servers:
    """Two of Atoll, which clients know as a and b, and an LXD, as l, with its state in `lxd`; all in one box."""

    a: Daemon
    b: Daemon
    lxd: Path

    def data(self, server: str, volume: str, snapshot: str = "") -> Path:
        """Where the files of a volume in its pool p are."""
        state = {"a": self.a.dir, "b": self.b.dir, "l": self.lxd}[server]
        folder = state / "storage-pools/p" / ("custom-snapshots" if snapshot else "custom")
        return folder / f"default_{volume}" / snapshot

    def clean(self, volume: str) -> None:
        """Nothing of that volume is on b, once what was begun is undone."""
        listed = ("atoll", "storage", "volume", "list", "p", "--format", "csv")
        wait_until(lambda: volume not in self.b.run(*listed), "it is not listed")
        wait_until(lambda: not self.data("b", volume).exists(), "its files are gone")
        wait_until(lambda: not self.data("b", volume, "s").parent.exists(), "so are those of its snapshots")


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """Each has a pool `p` of driver dir."""
    if lxd_server.PROGRAM is None:
        pytest.skip("LXD is not installed")
    folder = Path(tempfile.mkdtemp(prefix="atoll-system-"))
    for path in (folder, folder / "a", folder / "b", folder / "l"):
        path.mkdir(mode=0o711, exist_ok=True)
    try:
        with ExitStack() as stack:
            first, second = Daemon(folder / "a"), Daemon(folder / "b")
            for server in (first, second):
                stack.callback(server.close)
            second.box.close()
            second.box = first.box
            for server in (first, second):
                server.start()
            other = stack.enter_context(lxd_server.running(folder / "l", first.box))
            for name, program, server, port in (
                ("a", "atoll", first, 8443), ("b", "atoll", second, 8444), ("l", "lxc", other, 8445),
            ):  # fmt: skip
                if name != "l":
                    server.run(program, "storage", "create", "p", "dir")
                server.run(program, "config", "set", "core.https_address", f"127.0.0.1:{port}")
                server.run(program, "config", "set", "core.trust_password", "secret")
                first.run("atoll", "remote", "add", name, f"127.0.0.1:{port}", "--accept-certificate", "--password", "secret")
            yield Servers(first, second, folder / "l/lxd")
    finally:
        shutil.rmtree(folder)


def fill(data: Path, step: str) -> None:
    """A tree with all kinds of files, each time somewhat different."""
    (data / step).write_text(step)
    os.chown(data / step, 1000, 33)
    with (data / "grows").open("a") as file:
        file.write(step)
    os.setxattr(data / "grows", "user.step", step.encode())
    if step == "one":
        (data / "deep/er").mkdir(parents=True)
        os.chmod(data / "deep", 0o2751)
        os.symlink("/etc/shadow", data / "link")
        os.mkfifo(data / "fifo", 0o640)
        (data / "sparse").touch()
        os.truncate(data / "sparse", 8 << 20)
    else:
        shutil.rmtree(data / "deep", ignore_errors=True)
    for path in (data, *data.rglob("*")):
        at = path.lstat()
        if time.time_ns() - at.st_mtime_ns < HOUR // 2:
            os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns - AGES.get(step, 0) * HOUR), follow_symlinks=False)


def look(data: Path) -> list[tuple[object, ...]]:
    """All that is to be the same elsewhere."""
    found: list[tuple[object, ...]] = []
    for path in sorted([data, *data.rglob("*")]):
        at = path.lstat()
        plain = path.is_file() and not path.is_symlink()
        content = path.read_bytes() if plain else os.readlink(path) if path.is_symlink() else b""
        attributes = {name: os.getxattr(path, name) for name in os.listxattr(path)} if plain else {}
        found.append((str(path.relative_to(data)), at.st_mode, at.st_uid, at.st_gid, at.st_mtime_ns, content, attributes))
    return found


@pytest.fixture(scope="module")
def original(servers: Servers) -> Iterator[list[list[tuple[object, ...]]]]:
    """A volume `v` on a, with snapshots s0 and s1: what each state has."""
    run = servers.a.run
    run("atoll", "storage", "volume", "create", "p", "v", "user.step=zero", "snapshots.expiry=")
    for step, snapshot in (("one", "s0"), ("two", "s1"), ("three", "")):
        fill(servers.data("a", "v"), step)
        run("atoll", "storage", "volume", "set", "p", "v", "user.step", step)
        if snapshot:
            run("atoll", "storage", "volume", "snapshot", "p", "v", snapshot)
    yield [look(servers.data("a", "v", "s0")), look(servers.data("a", "v", "s1")), look(servers.data("a", "v"))]
    for each in ("v", "back"):
        servers.a.try_("atoll", "storage", "volume", "delete", "p", each)


def states(servers: Servers, server: str, volume: str) -> list[list[tuple[object, ...]]]:
    return [look(servers.data(server, volume, each)) for each in ("s0", "s1", "")]


def test_by_way_of_lxd_and_back(servers: Servers, original: list[list[tuple[object, ...]]]) -> None:
    run = servers.a.run
    run("lxc", "storage", "volume", "copy", "a:p/v", "l:p/there")
    assert states(servers, "l", "there") == original
    run("atoll", "storage", "volume", "copy", "l:p/there", "b:p/v", "--mode", "push")
    run("atoll", "storage", "volume", "move", "b:p/v", "a:p/back", "--mode", "relay")
    assert states(servers, "a", "back") == original
    servers.clean("v")
    for snapshot, step in (("/s0", "one"), ("/s1", "two"), ("", "three")):
        for place in ("a:p back", "l:p there"):
            pool, name = place.split()
            assert run("atoll", "storage", "volume", "get", pool, f"{name}{snapshot}", "user.step") == f"{step}\n"


def test_disks_go_both_ways(servers: Servers) -> None:
    run = servers.a.run
    run("atoll", "storage", "volume", "create", "p", "disk", "--type=block", "size=8MiB")
    for text, snapshot in ((b"one", "s0"), (b"two", "")):
        with (servers.data("a", "disk") / "root.img").open("r+b") as disk:
            disk.seek(4 << 20)
            disk.write(text)
        if snapshot:
            run("atoll", "storage", "volume", "snapshot", "p", "disk", snapshot)
    for source, target in (("a:p/disk", "l:p/disk"), ("l:p/disk", "b:p/disk"), ("b:p/disk", "a:p/again")):
        run("lxc", "storage", "volume", "copy", source, target)
    for server, name in (("l", "disk"), ("b", "disk"), ("a", "again")):
        for snapshot in ("s0", ""):
            found = servers.data(server, name, snapshot) / "root.img"
            assert found.read_bytes() == (servers.data("a", "disk", snapshot) / "root.img").read_bytes()
            assert server == "l" or found.stat().st_blocks < 2048
    for place in ("a:p disk", "a:p again", "b:p disk"):
        run("atoll", "storage", "volume", "delete", *place.split())


def test_ids_of_a_host_are_turned_back_and_a_refresh_brings_what_is_new(
    servers: Servers, original: list[list[tuple[object, ...]]]
) -> None:
    """Where an unprivileged instance of LXD has used a volume, its files may have the host's ids."""
    run = servers.a.run
    run("atoll", "storage", "volume", "copy", "a:p/v", "l:p/shifted")
    for path in (servers.data("l", "shifted"), *servers.data("l", "shifted").rglob("*")):
        at = path.lstat()
        os.chown(path, at.st_uid + SHIFT, at.st_gid + SHIFT, follow_symlinks=False)
        os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns), follow_symlinks=False)
    idmap = f'[{{"Isuid":true,"Isgid":true,"Hostid":{SHIFT},"Nsid":0,"Maprange":65536}}]'
    run("lxc", "storage", "volume", "set", "l:p", "shifted", f"volatile.idmap.last={idmap}")
    run("lxc", "storage", "volume", "copy", "l:p/shifted", "b:p/v")
    assert states(servers, "b", "v") == original

    run("atoll", "storage", "volume", "delete", "b:p", "v/s0")
    run("atoll", "storage", "volume", "snapshot", "b:p", "v", "extra")
    fill(servers.data("b", "v"), "of its own")
    run("lxc", "storage", "volume", "copy", "a:p/v", "b:p/v", "--refresh")
    assert states(servers, "b", "v") == original
    assert not servers.data("b", "v", "extra").exists()
    run("atoll", "storage", "volume", "copy", "a:p/v/s0", "b:p/of-s0")
    assert look(servers.data("b", "of-s0")) == original[0]
    for name in ("v", "of-s0"):
        run("atoll", "storage", "volume", "delete", "b:p", name)
    servers.clean("v")


@pytest.fixture
def slow(servers: Servers) -> Iterator[str]:
    """A volume on a that takes many seconds to be sent, because of its pool's limit."""
    run = servers.a.run
    run("atoll", "storage", "volume", "create", "p", "large")
    run("atoll", "storage", "volume", "snapshot", "p", "large", "s")
    (servers.data("a", "large") / "random").write_bytes(os.urandom(24 << 20))
    run("atoll", "storage", "set", "p", "rsync.bwlimit", "2MiB")
    yield "large"
    run("atoll", "storage", "unset", "p", "rsync.bwlimit")
    run("atoll", "storage", "volume", "delete", "p", "large")


def cut_off(servers: Servers, victim: str, *flags: str) -> None:
    """Kill a server while the files are on their way, and start it again."""
    killed: Daemon = getattr(servers, victim)
    client = servers.a.begin("atoll", "storage", "volume", "copy", "a:p/large", "b:p/large", *flags)
    try:
        wait_until(lambda: list(servers.data("b", "large").glob(".random.*")), "files arrive")
        killed.kill()
        assert client.wait(SECONDS) != 0
    finally:
        client.kill()
        client.wait()
    killed.start()


@pytest.mark.parametrize("victim", ["a", "b"])
def test_a_kill_in_between_leaves_the_source_whole_and_the_target_clean(servers: Servers, slow: str, victim: str) -> None:
    before = look(servers.data("a", slow))
    cut_off(servers, victim)
    servers.clean(slow)
    assert look(servers.data("a", slow)) == before


def test_a_refresh_that_was_cut_off_is_made_again(servers: Servers, slow: str) -> None:
    servers.a.run("atoll", "storage", "volume", "copy", "a:p/large/s", "b:p/large")
    cut_off(servers, "b", "--refresh")
    servers.a.run("atoll", "storage", "unset", "p", "rsync.bwlimit")
    servers.a.run("atoll", "storage", "volume", "copy", "a:p/large", "b:p/large", "--refresh")
    for snapshot in ("", "s"):
        assert look(servers.data("b", slow, snapshot)) == look(servers.data("a", slow, snapshot))
    servers.b.run("atoll", "storage", "volume", "delete", "p", "large")
    servers.clean(slow)
