"""Files of real containers, one of which does what it can to lead out or to hang who looks at it."""

from __future__ import annotations

import hashlib
import itertools
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from box import SECONDS, Daemon, children, wait_until  # found through conftest's path

pytestmark = pytest.mark.system

SECRET = "the host's\n"


@pytest.fixture(scope="module")
def guest(daemon: Daemon) -> Iterator[str]:
    """A running container `c1`."""
    daemon.run("atoll", "launch", "tiny", "c1")
    yield "c1"
    daemon.run("atoll", "delete", "--force", "c1")


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A file of the host that only root reads; it is as it was after the test."""
    path = tmp_path / "canary"
    path.write_text(SECRET)
    path.chmod(0o600)
    before = _picture(path)
    yield path
    assert path.read_text() == SECRET and _picture(path) == before and os.listdir(tmp_path) == ["canary"]


def _picture(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_ino, found.st_mode, found.st_uid, found.st_gid, found.st_nlink, found.st_mtime_ns


def worker_of(daemon: Daemon) -> int:
    """The only worker there is, once those of earlier sessions have ended: a child of the zygote, which is the daemon's."""
    (zygote,) = zygotes_of(daemon.pid)
    (worker,) = wait_until(lambda: len(found := zygotes_of(zygote)) == 1 and found, "there is one worker")
    return int(worker)


def zygotes_of(parent: int) -> list[int]:
    """The zygote among the children of the daemon, or the workers among those of the zygote."""
    return [pid for pid in children(parent) if name_of(pid) == "atoll-zygote"]


def name_of(pid: int) -> str:
    """What a process is called; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
    except OSError:
        return ""


def upgraded(daemon: Daemon, name: str) -> socket.socket:
    """A connection that speaks SFTP, its greetings exchanged."""
    stream = socket.socket(socket.AF_UNIX)
    stream.settimeout(SECONDS)
    stream.connect(str(daemon.state / "unix.socket"))
    stream.sendall(f"GET /1.0/instances/{name}/sftp HTTP/1.1\r\nHost: x\r\nUpgrade: sftp\r\nConnection: Upgrade\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += stream.recv(1)
    assert b" 101 " in head, head
    stream.sendall(struct.pack(">IBI", 5, 1, 3))
    assert packet(stream)[:5] == struct.pack(">BI", 2, 3)
    return stream


def packet(stream: socket.socket) -> bytes:
    """The next one, without its length."""
    with stream.makefile("rb", buffering=0) as file:
        (size,) = struct.unpack(">I", file.read(4) or b"")
        found = b""
        while len(found) < size:
            found += file.read(size - len(found)) or b""
    return found


@pytest.mark.parametrize("program", ["atoll", "lxc"])
def test_the_guest_and_the_host_see_the_same(daemon: Daemon, guest: str, tmp_path: Path, program: str) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "big").write_bytes(os.urandom(8 << 20))
    (source / "sub/x").write_text("x")
    (source / "sub/l").symlink_to("/etc/hostname")
    os.chown(source / "sub/x", 1000, 1000)
    daemon.run(program, "file", "push", "--quiet", "-r", "-p", str(source), f"{guest}/srv/{program}")
    top = f"/srv/{program}/source"
    digest = hashlib.md5((source / "big").read_bytes()).hexdigest()
    assert daemon.inside(guest, "md5sum", f"{top}/big").split()[0] == digest
    assert daemon.inside(guest, "stat", "-c", "%u:%g", f"{top}/sub/x") == "1000:1000"
    assert daemon.inside(guest, "readlink", f"{top}/sub/l") == "/etc/hostname"
    daemon.run(program, "file", "pull", "--quiet", "-r", f"{guest}{top}", str(tmp_path / "back"))
    assert (tmp_path / "back/source/big").read_bytes() == (source / "big").read_bytes()
    assert os.readlink(tmp_path / "back/source/sub/l") == "/etc/hostname"
    daemon.inside(guest, "sh", "-c", "echo mine >/tmp/mine; chmod 600 /tmp/mine; chown 7 /tmp/mine")
    daemon.run(program, "file", "edit", f"{guest}/tmp/mine", stdin="edited\n")
    assert daemon.inside(guest, "stat", "-c", "%u %a %s", "/tmp/mine") == "7 600 7"
    assert daemon.run(program, "file", "pull", f"{guest}/tmp/mine", "-") == "edited\n"
    daemon.run(program, "file", "delete", f"{guest}/tmp/mine")
    assert daemon.try_(program, "file", "pull", f"{guest}/tmp/mine", "-").returncode == 1


def test_what_runs_and_what_does_not_have_the_same_files(daemon: Daemon, guest: str) -> None:
    daemon.run("atoll", "init", "tiny", "c2")
    try:
        daemon.run("atoll", "file", "push", "-", "c2/etc/motd", "--uid", "5", stdin="hello\n")
        daemon.run("atoll", "start", "c2")
        assert daemon.inside("c2", "cat", "/etc/motd") == "hello"
        assert daemon.inside("c2", "stat", "-c", "%u", "/etc/motd") == "5"
        daemon.inside("c2", "sh", "-c", "echo changed >/etc/motd")
        daemon.run("atoll", "stop", "--force", "c2")
        assert daemon.run("atoll", "file", "pull", "c2/etc/motd", "-") == "changed\n"
    finally:
        daemon.run("atoll", "delete", "--force", "c2")


def test_a_hostile_guest_leads_nowhere(daemon: Daemon, guest: str, canary: Path) -> None:
    up = "../" * 20
    script = f"""mkdir -p /evil && cd /evil
        ln -s {canary} abs; ln -s {up}{canary} up; ln -s {canary.parent} dir; ln -s {up}{canary.parent} updir
        ln -s /proc/1/root root; ln -s /proc/self/cwd cwd; ln -s loop loop; mkfifo fifo"""
    daemon.inside(guest, "sh", "-c", script)
    names = ["abs", "up", "dir/canary", "updir/canary", f"root{canary}", f"cwd{canary}", "loop", "fifo", "../../.." + str(canary)]
    for name in names:
        done = daemon.try_("atoll", "file", "pull", f"{guest}/evil/{name}", "-")
        assert done.returncode == 1 and SECRET not in done.stdout + done.stderr, name
        daemon.try_("atoll", "file", "push", "-", f"{guest}/evil/{name}", stdin="evil")
        daemon.try_("atoll", "file", "delete", f"{guest}/evil/{name}")
    for path in ("/proc/1/root/etc/passwd", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/dev/null"):
        assert daemon.try_("atoll", "file", "push", "-", f"{guest}{path}", stdin="evil").returncode == 1, path


def test_a_guest_that_swaps_names_gains_nothing(daemon: Daemon, guest: str, canary: Path) -> None:
    """The race of CVE-2018-15664, with a real guest on its side and the bare protocol on ours."""
    script = f"""mkdir -p /race/real && cd /race && ln -s {canary.parent} link && echo guest >real/canary && touch go
        while [ -e go ]; do mv real d; mv d real; mv link d; mv d link; done 2>/dev/null"""
    swapping = subprocess.Popen(
        daemon.box.enter([daemon.program("atoll"), "exec", guest, "--", "sh", "-c", script]), env=daemon.env()
    )
    try:
        wait_until(lambda: daemon.try_("atoll", "file", "pull", f"{guest}/race/real/canary", "-").returncode == 0, "it swaps")
        path, seen = b"/race/d/canary", 0
        deadline = time.monotonic() + SECONDS
        with upgraded(daemon, guest) as stream:
            for number in itertools.count():
                if number >= 2000 and (seen or time.monotonic() > deadline):
                    break
                body = struct.pack(">II", number, len(path)) + path + struct.pack(">II", 3, 0)
                stream.sendall(struct.pack(">IB", 1 + len(body), 3) + body)
                answer = packet(stream)
                if answer[0] != 102:
                    continue
                seen += 1
                handle = answer[5:]
                body = struct.pack(">I", number) + handle + struct.pack(">QI", 0, 100)
                stream.sendall(struct.pack(">IB", 1 + len(body), 5) + body)
                assert SECRET.encode() not in packet(stream)
                body = struct.pack(">I", number) + handle
                stream.sendall(struct.pack(">IB", 1 + len(body), 4) + body)
                packet(stream)
        assert seen
    finally:
        daemon.run("atoll", "file", "delete", f"{guest}/race/go")
        swapping.wait(SECONDS)


def test_the_worker_is_in_the_guest(daemon: Daemon, guest: str) -> None:
    with upgraded(daemon, guest):
        worker = worker_of(daemon)
        for kind in ("user", "mnt"):
            assert os.readlink(f"/proc/{worker}/ns/{kind}") == daemon.inside(guest, "readlink", f"/proc/self/ns/{kind}")
        status = dict(line.split(":", 1) for line in Path(f"/proc/{worker}/status").read_text().splitlines())
        assert int(status["CapEff"], 16) == 0b11011 and "0" not in status["Uid"].split()
        held = {os.readlink(f"/proc/{worker}/fd/{fd}").partition(":")[0] for fd in os.listdir(f"/proc/{worker}/fd")}
        assert {target for target in held if not target.endswith("/fd")} == {"/", "/dev/null", "socket"}
    wait_until(lambda: not os.path.exists(f"/proc/{worker}"), "the worker has ended")


def test_a_session_ends_with_its_machine(daemon: Daemon, guest: str) -> None:
    with upgraded(daemon, guest) as stream:
        daemon.run("atoll", "restart", "--force", guest)
        assert stream.recv(1) == b""
    assert daemon.run("atoll", "file", "pull", f"{guest}/etc/hostname", "-")
