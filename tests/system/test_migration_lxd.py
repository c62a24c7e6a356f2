"""An instance on btrfs that goes from Atoll to the real LXD 5.0 and back, with its snapshots: files, ids and configuration are
what they were."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lxd_server  # found through conftest's path
import pytest
import yaml
from box import Daemon
from lxd_server import Lxd

pytestmark = pytest.mark.system

BEGINNING = """
    echo one > /root/file; ln /root/file /root/link; chown 1000:33 /root/file; chmod 4711 /root/file; mkfifo /root/fifo
    ln -s /etc/shadow /root/symlink; mkdir -p /root/deep/er; chown 7:8 /root/deep; chmod 2775 /root/deep; rm -f /etc/group
    touch -d '2001-02-03 04:05:06' /root/deep; dd if=/dev/urandom of=/root/hole bs=4096 count=2 seek=5000 2>/dev/null
"""
LATER = "echo two >> /root/file; rm -r /root/deep/er; echo new > /root/new; mv /root/hole /root/deep/hole"

MANIFEST = """
import hashlib, json, os, stat, sys
found, inodes = {}, {}
for folder, names, files in os.walk(sys.argv[1]):
    for name in [".", *files, *(each for each in names if os.path.islink(os.path.join(folder, each)))]:
        path = os.path.join(folder, name)
        facts = os.lstat(path)
        what = hashlib.sha256(open(path, "rb").read()).hexdigest() if stat.S_ISREG(facts.st_mode) else ""
        what = os.readlink(path) if stat.S_ISLNK(facts.st_mode) else what
        marks = {each: os.getxattr(path, each, follow_symlinks=False).hex() for each in os.listxattr(path, follow_symlinks=False)}
        key = os.path.relpath(path, sys.argv[1])
        same = inodes.setdefault(facts.st_ino, key)
        size = [facts.st_size, facts.st_blocks]
        found[key] = [facts.st_mode, facts.st_uid, facts.st_gid, facts.st_mtime_ns, size, same, what, marks]
print(json.dumps(found))
"""


@pytest.fixture
def lxd(machines: Daemon) -> Iterator[Lxd]:
    """A real LXD beside the daemon, both with a pool `fast` on btrfs; clients know them as a and l."""
    if lxd_server.PROGRAM is None:
        pytest.skip("LXD is not installed")
    folder = machines.state.parent / "l"
    folder.mkdir(mode=0o711)
    with lxd_server.running(folder, machines.box) as server:
        for name, program, each, port in (("a", "atoll", machines, 8443), ("l", "lxc", server, 8445)):
            each.run(program, "storage", "create", "fast", "btrfs", "size=1GiB")
            each.run(program, "config", "set", "core.https_address", f"127.0.0.1:{port}")
            each.run(program, "config", "set", "core.trust_password", "secret")
            machines.run("atoll", "remote", "add", name, f"127.0.0.1:{port}", "--accept-certificate", "--password", "secret")
        yield server
        server.delete_all()


def manifest(server: Daemon, pool: Path, name: str, snapshot: str = "") -> Any:
    """All files of an instance or a snapshot: kind, mode, owners, time, size, blocks, names of one file, content, attributes."""
    place = pool / ("containers-snapshots" if snapshot else "containers") / name / snapshot / "rootfs"
    argv = server.box.enter([sys.executable, "-c", MANIFEST, str(place)])
    return json.loads(subprocess.run(argv, capture_output=True, check=True, timeout=60).stdout)


def described(server: Daemon, name: str) -> dict[str, Any]:
    """What does not belong to one server alone."""
    shown = yaml.safe_load(server.run("atoll", "config", "show", name))
    config = {key: value for key, value in shown["config"].items() if not key.startswith("volatile.")}
    devices = {key: value for key, value in shown["devices"].items() if key != "root"}
    return {**{key: shown[key] for key in ("architecture", "ephemeral", "profiles")}, "config": config, "devices": devices}


def test_there_and_back_it_is_the_same(machines: Daemon, lxd: Lxd) -> None:
    ours, theirs = machines.dir / "storage-pools/fast", machines.state.parent / "l/lxd/storage-pools/fast"
    machines.run("atoll", "launch", "tiny", "c1", "--storage", "fast", "--config", "user.one=1")
    machines.inside("c1", "sh", "-c", BEGINNING)
    machines.run("atoll", "config", "device", "add", "c1", "none", "none")
    root = ours / "containers/c1/rootfs"
    for argv in (
        ["setcap", "cap_net_raw+ep", str(root / "bin/busybox")],
        ["setfacl", "-m", "u:1000:rwx,d:g:33:r", str(root / "root/deep")],
        ["setfattr", "-n", "user.note", "-v", "kept", str(root / "root/file")],
    ):
        subprocess.run(machines.box.enter(argv), check=True)
    machines.run("atoll", "snapshot", "c1", "early")
    machines.inside("c1", "sh", "-c", LATER)
    machines.run("atoll", "snapshot", "c1", "late")
    machines.run("atoll", "stop", "--force", "c1")
    states = ("", "early", "late")
    before = [manifest(machines, ours, "c1", state) for state in states]
    machines.run("atoll", "copy", "a:c1", "l:c1", "--storage", "fast")
    assert [manifest(machines, theirs, "c1", state) for state in states] == before
    machines.run("atoll", "copy", "l:c1", "a:back", "--storage", "fast")
    assert [manifest(machines, ours, "back", state) for state in states] == before
    assert described(machines, "back") == described(machines, "c1")
    shown = {}
    for name in ("c1", "back"):
        told = json.loads(machines.run("atoll", "list", name, "--format", "json"))[0]["snapshots"]
        shown[name] = [(each["name"], each["created_at"][:19], each["config"].get("user.one")) for each in told]
    assert shown["back"] == shown["c1"]
    machines.run("atoll", "start", "back")
    assert machines.inside("back", "stat", "-c", "%u %g %h", "/root/file") == "1000 33 2"
    machines.run("atoll", "stop", "--force", "back")
    refreshed_however_often(machines, lxd)


def refreshed_however_often(machines: Daemon, lxd: Lxd) -> None:
    """The copy on LXD, which does not know again what it was refreshed with by streams; and the copy of that one, which lacks a
    snapshot in the middle."""
    for name in ("third", "fourth"):
        machines.run("atoll", "snapshot", "c1", name)
        machines.run("atoll", "copy", "a:c1", "l:c1", "--refresh", "--storage", "fast")
    machines.run("atoll", "delete", "back/early")
    machines.run("atoll", "copy", "l:c1", "a:back", "--refresh", "--storage", "fast")
    machines.run("atoll", "copy", "l:c1/early", "a:early", "--storage", "fast")
    known = {each["name"]: each["snapshots"] for each in json.loads(machines.run("atoll", "list", "--format", "json"))}
    assert {each["name"] for each in known["back"]} == {"early", "late", "third", "fourth"}
    assert not known["early"]
