"""Instances between two servers: what arrives is what was sent, and what a kill of either leaves is whole, or gone."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from box import SECONDS, Daemon, wait_until

pytestmark = [pytest.mark.system, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

CHANGES = """
    echo one > /root/file; ln /root/file /root/link; chown 1000:1000 /root/file; chmod 4711 /root/file
    mkdir -p /root/deep/er; mkfifo /root/fifo; ln -s /etc/shadow /root/symlink; rm -f /etc/doomed
"""
AFTER = "echo two > /root/new; rm -r /root/deep; dd if=/dev/urandom of=/root/large bs=1M count=24 2>/dev/null"
LOOK = "cd /root; stat -c '%n %u %g %a %h %F' *; cat file; [ ! -e large ] || md5sum large"


@dataclass(frozen=True)
class Pair:
    """Two daemons that reach each other; clients know them as a and b."""

    a: Daemon
    b: Daemon

    def settled(self) -> None:
        """Neither has anything under way, nor left in its folder of uploads; b has no files without an instance."""
        wait_until(lambda: not list(self.a.dir.glob("backups/.import-*")), "the source's folder is gone")
        wait_until(lambda: not list(self.b.dir.glob("backups/.import-*")), "the target's folder is gone")
        wait_until(self._is_target_consistent, "the target's files are those of its instances")

    def _is_target_consistent(self) -> bool:
        known = {name for (name,) in self.b.listed("n")}
        return {path.name for path in self.b.dir.glob("storage-pools/plain/containers/*")} == known


@pytest.fixture(scope="module")
def pair(daemon: Daemon) -> Iterator[Pair]:
    """The second is in the first one's box, and has a pool of another driver."""
    folder = Path(tempfile.mkdtemp(prefix="atoll-system-"))
    folder.chmod(0o711)
    try:
        second = Daemon(folder)
        second.box.close()
        second.box = daemon.box
        try:
            second.start()
            second.run("atoll", "storage", "create", "plain", "dir")
            second.run("atoll", "storage", "create", "layered", "overlay")
            second.run("atoll", "profile", "device", "add", "default", "root", "disk", "path=/", "pool=plain")
            for name, server, port in (("a", daemon, 8443), ("b", second, 8444)):
                server.run("atoll", "config", "set", "core.https_address", f"127.0.0.1:{port}")
                server.run("atoll", "config", "set", "core.trust_password", "secret")
                daemon.run("atoll", "remote", "add", name, f"127.0.0.1:{port}", "--accept-certificate", "--password", "secret")
            yield Pair(daemon, second)
        finally:
            for (name,) in second.listed("n"):
                second.run("atoll", "delete", "--force", name)
            second.kill()
            second.remove_groups()
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def original(pair: Pair) -> Iterator[str]:
    """An instance on a, with two snapshots, that runs. What is looked for in its copies."""
    pair.a.run("atoll", "launch", "tiny", "c1", "--config", "user.one=1")
    pair.a.inside("c1", "sh", "-c", CHANGES)
    pair.a.run("atoll", "snapshot", "c1", "early")
    pair.a.inside("c1", "sh", "-c", AFTER)
    pair.a.run("atoll", "snapshot", "c1", "late")
    yield pair.a.inside("c1", "sh", "-c", LOOK)
    for (name,) in pair.a.listed("n"):
        pair.a.run("atoll", "delete", "--force", name)


def test_a_copy_is_what_the_original_is_and_was(pair: Pair, original: str) -> None:
    pair.a.run("atoll", "copy", "a:c1", "b:", "--stateless")
    assert pair.b.listed("nsS") == [["c1", "STOPPED", "2"]]
    pair.b.run("atoll", "start", "c1")
    assert pair.b.inside("c1", "sh", "-c", LOOK) == original
    pair.b.run("atoll", "restore", "c1", "early")
    assert "deep 0 0 755" in pair.b.inside("c1", "sh", "-c", LOOK)
    pair.b.run("atoll", "stop", "--force", "c1")
    pair.a.run("atoll", "copy", "a:c1", "b:", "--stateless", "--refresh", "--mode", "relay")
    pair.b.run("atoll", "start", "c1")
    assert pair.b.inside("c1", "sh", "-c", LOOK) == original
    pair.a.run("atoll", "config", "set", "b:c1", "user.one=2")
    pair.a.run("atoll", "move", "b:c1", "a:back", "--mode", "push", "--stateless")
    assert pair.b.listed("n") == []
    pair.a.run("atoll", "start", "back")
    assert pair.a.inside("back", "sh", "-c", LOOK) == original
    assert pair.a.run("atoll", "config", "get", "back", "user.one") == "2\n"
    pair.a.run("atoll", "delete", "--force", "back")
    pair.settled()


def test_layers_arrive_as_they_are(pair: Pair, original: str) -> None:
    pair.a.run("atoll", "copy", "a:c1", "b:layers", "--stateless", "--storage", "layered")
    assert len(list(pair.b.dir.glob("storage-pools/layered/layers/*"))) == 4  # of the image, of early, of late, and its own
    pair.b.run("atoll", "start", "layers")
    assert pair.b.inside("layers", "sh", "-c", LOOK) == original
    pair.b.run("atoll", "delete", "--force", "layers")


@pytest.fixture
def slow(pair: Pair) -> Iterator[None]:
    """What the servers send each other takes its time: some seconds for a large file."""
    pair.a.run("tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", "24mbit", "burst", "256k", "latency", "1s")
    yield
    pair.a.run("tc", "qdisc", "delete", "dev", "lo", "root")


@pytest.mark.parametrize(
    ("victim", "pool", "arriving"),
    [
        ("a", "plain", "containers/cut/rootfs/root/.large.*"),
        ("b", "plain", "containers/cut/rootfs/root/.large.*"),
        ("a", "layered", ".aside/layer-*/root/large"),
        ("b", "layered", ".aside/layer-*/root/large"),
    ],
)
def test_a_kill_in_between_leaves_the_source_whole_and_the_target_clean(
    pair: Pair, original: str, slow: None, victim: str, pool: str, arriving: str
) -> None:
    killed: Daemon = getattr(pair, victim)
    client = pair.a.begin("atoll", "copy", "a:c1", "b:cut", "--stateless", "--instance-only", "--storage", pool)
    try:
        wait_until(lambda: list(pair.b.dir.glob(f"storage-pools/{pool}/{arriving}")), "files arrive")
        killed.kill()
        assert client.wait(SECONDS) != 0
    finally:
        client.kill()
        client.wait()
    killed.start()
    wait_until(lambda: not pair.b.listed("n"), "the target is clean")
    pair.settled()
    wait_until(lambda: not list(pair.b.dir.glob("storage-pools/layered/.aside/*")), "nothing is left aside")
    wait_until(lambda: not list(pair.b.dir.glob("storage-pools/layered/layers/*")), "no layer is left")
    assert pair.a.inside("c1", "sh", "-c", LOOK) == original
    assert pair.a.listed("nS") == [["c1", "2"]]


def test_a_program_made_with_pylxd(pair: Pair) -> None:
    """By HTTPS, with the client's certificate: all that it does with an instance, and moving it."""
    script, servers = Path(__file__).with_name("by_pylxd.py"), ("https://127.0.0.1:8443", "https://127.0.0.1:8444")
    pair.a.run(sys.executable, "-I", str(script), pair.a.env()["LXD_CONF"], *servers)
    pair.settled()
