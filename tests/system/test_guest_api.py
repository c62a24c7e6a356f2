"""/dev/lxd and cloud-init in a real Debian that has cloud-init's own package."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from box import Daemon, wait_until

pytestmark = [pytest.mark.system, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

USER_DATA = """#cloud-config
write_files:
- {path: /root/first, content: "one\\n"}
- {path: /etc/cloud/cloud.cfg.d/99-next.cfg, content: "datasource_list: [LXD, None]\\n"}
users:
- {name: jane, shell: /bin/bash}
"""
VENDOR_DATA = "#cloud-config\nruncmd: [[touch, /root/vendor]]\n"
NETWORK = "version: 2\nethernets: {eth0: {dhcp4: true, addresses: [10.99.99.9/24]}}\n"
SECOND = "#cloud-config\nwrite_files: [{path: /root/second, content: two}]\n"

ASK = """
import http.client, json, socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect("/dev/lxd/sock")
asker = http.client.HTTPConnection("lxd")
asker.sock = link
answers = {}
for path in sys.argv[1:]:
    asker.request("GET", path)
    answer = asker.getresponse()
    answers[path] = (answer.status, answer.read().decode())
print(json.dumps(answers))
"""

LISTEN = """
import json, socket, time
REQUEST = (b"GET /1.0/events HTTP/1.1\\r\\nHost: lxd\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n"
           b"Sec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\\r\\n\\r\\n")
def listen():
    link = socket.socket(socket.AF_UNIX)
    link.connect("/dev/lxd/sock")
    link.sendall(REQUEST)
    stream = link.makefile("rb")
    assert b" 101 " in stream.readline()
    while stream.readline() != b"\\r\\n":
        pass
    print("listening", flush=True)
    while (head := stream.read(2)) and head[0] & 15 == 1:
        size = head[1] if head[1] < 126 else int.from_bytes(stream.read(2), "big")
        print(json.dumps(json.loads(stream.read(size))["metadata"]), flush=True)
while True:
    try:
        listen()
    except (OSError, AssertionError):
        time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def guest(daemon: Daemon, cloud_image: Path) -> Iterator[Daemon]:
    """It runs, and cloud-init has done its work for the first time."""
    daemon.run("atoll", "image", "import", str(cloud_image), "--alias", "cloud")
    config = {"user-data": USER_DATA, "vendor-data": VENDOR_DATA, "network-config": NETWORK}
    flags = [word for key, text in config.items() for word in ("-c", f"cloud-init.{key}={text}")]
    daemon.run("atoll", "launch", "cloud", "c1", *flags, "-c", "user.foo=bar")
    wait_for_cloud_init(daemon)
    yield daemon
    daemon.run("atoll", "delete", "--force", "c1")


def wait_for_cloud_init(daemon: Daemon) -> None:
    """Until it is done, well."""
    daemon.run(
        "atoll", "exec", "c1", "--", "sh", "-c", "until test -e /run/cloud-init/result.json; do sleep 0.1; done", timeout=120
    )
    assert json.loads(daemon.inside("c1", "cat", "/run/cloud-init/result.json"))["v1"]["errors"] == []


def ask(daemon: Daemon, *paths: str, before: tuple[str, ...] = (), flags: tuple[str, ...] = ()) -> dict[str, Any]:
    """Path → (status, text), as a process in the guest gets it; `before` is a program in front, `flags` are of exec."""
    argv = ("atoll", "exec", "c1", *flags, "--", *before, "python3", "-", *paths)
    answers: dict[str, Any] = json.loads(daemon.run(*argv, stdin=ASK))
    return answers


def test_cloud_init_does_what_it_is_told_by_seeds(guest: Daemon) -> None:
    assert "DataSourceNoCloud" in guest.inside("c1", "cat", "/run/cloud-init/result.json")
    assert guest.inside("c1", "cat", "/root/first") == "one"
    assert guest.inside("c1", "sh", "-c", "hostname; ls /root/vendor; id -un jane") == "c1\n/root/vendor\njane"
    assert "10.99.99.9/24" in guest.inside("c1", "ip", "-4", "addr", "show", "eth0")
    assert guest.address("c1")
    assert guest.inside("c1", "systemctl", "--failed", "--quiet") == ""


def test_a_guest_asks_of_itself(guest: Daemon) -> None:
    answers = ask(guest, "/1.0", "/1.0/config/user.foo", "/1.0/config/security.devlxd", "/1.0/devices", "/1.0/meta-data")
    assert answers["/1.0"] == [200, '{"api_version":"1.0"}\n']
    assert answers["/1.0/config/user.foo"] == [200, "bar"]
    assert answers["/1.0/config/security.devlxd"][0] == 403
    config = guest.query("/1.0/instances/c1")["config"]
    assert json.loads(answers["/1.0/devices"][1])["eth0"]["hwaddr"] == config["volatile.eth0.hwaddr"]
    assert f"instance-id: {config['volatile.cloud-init.instance-id']}\n" in answers["/1.0/meta-data"][1]


def test_only_its_root_may(guest: Daemon) -> None:
    become_root = ("unshare", "--user", "--map-root-user")
    assert ask(guest, "/", before=("unshare", "--pid", "--fork"))["/"][0] == 200, "in a namespace within it is still the guest's"
    assert ask(guest, "/", flags=("--user", "1000"))["/"][0] == 401
    assert ask(guest, "/", before=become_root, flags=("--user", "1000"))["/"][0] == 401, (
        "root of its own namespace is not the guest's"
    )
    outside = ASK.replace("/dev/lxd/sock", str(guest.dir / "devlxd/sock"))
    assert json.loads(guest.run(sys.executable, "-", "/", stdin=outside))["/"][0] == 403
    assert guest.try_("atoll", "exec", "c1", "--", "touch", "/dev/lxd/mine").returncode != 0


def test_events_go_on_after_the_daemon_s_restart(guest: Daemon) -> None:
    guest.run("atoll", "exec", "c1", "--", "sh", "-c", "cat >/root/listen.py", stdin=LISTEN)
    guest.run("atoll", "exec", "c1", "--", "sh", "-c", "setsid python3 /root/listen.py >/root/heard 2>&1 </dev/null &")
    try:
        wait_until(lambda: heard(guest) == ["listening"], "it listens")
        guest.run("atoll", "config", "set", "c1", "user.foo", "baz")
        guest.run("atoll", "config", "device", "add", "c1", "usr", "disk", "source=/usr", "path=/mnt")
        wait_until(lambda: len(heard(guest)) == 3, "it has heard of both")
        guest.kill()
        guest.start()
        wait_until(lambda: heard(guest)[3:] == ["listening"], "it listens again")
        guest.run("atoll", "config", "device", "remove", "c1", "usr")
        told = wait_until(lambda: len(heard(guest)) > 4 and heard(guest), "it was told")
    finally:
        guest.try_("atoll", "exec", "c1", "--", "pkill", "-f", "listen.py")
    disk = {"type": "disk", "source": "/usr", "path": "/mnt"}
    assert [json.loads(line) for line in told if line != "listening"] == [
        {"key": "user.foo", "old_value": "bar", "value": "baz"},
        {"name": "usr", "action": "added", "config": disk},
        {"name": "usr", "action": "removed", "config": disk},
    ]


def heard(guest: Daemon) -> list[str]:
    """The lines that the listener in the guest wrote."""
    return guest.inside("c1", "cat", "/root/heard").splitlines()


def test_it_can_be_taken_away_and_given_back(guest: Daemon) -> None:
    guest.run("atoll", "config", "set", "c1", "security.devlxd", "false")
    assert guest.try_("atoll", "exec", "c1", "--", "test", "-S", "/dev/lxd/sock").returncode == 1
    guest.run("atoll", "config", "unset", "c1", "security.devlxd")
    assert ask(guest, "/")["/"][0] == 200


def test_cloud_init_asks_again_when_it_is_told_something_else(guest: Daemon) -> None:
    """By /dev/lxd this time: the first run has left nothing but that data source in its configuration."""
    guest.run("atoll", "config", "set", "c1", "cloud-init.user-data", SECOND)
    guest.run("atoll", "restart", "--force", "c1")
    wait_for_cloud_init(guest)
    assert "DataSourceLXD" in guest.inside("c1", "cat", "/run/cloud-init/result.json")
    assert guest.inside("c1", "cat", "/root/second") == "two"
    assert "10.99.99.9/24" in guest.inside("c1", "ip", "-4", "addr", "show", "eth0")
