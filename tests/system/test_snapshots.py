"""Snapshots of real guests that go on writing, and their restore."""

from __future__ import annotations

import json
import os
import time

import pytest
from box import Daemon, wait_until  # found through conftest's path

pytestmark = [pytest.mark.system, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

WRITER = """
i=0
while :; do
  i=$((i + 1))
  echo $i >/root/new; mv /root/new /root/first
  dd if=/dev/zero of=/root/large bs=4k count=1 seek=$((i * 7 % 8000)) conv=notrunc 2>/dev/null
  echo $i >/root/new; mv /root/new /root/second
done
"""


def test_of_one_moment(machines: Daemon) -> None:
    """A guest writes to one file, then to a large one, then to another; a snapshot shows no other order."""
    machines.run("atoll", "launch", "tiny", "c1")
    machines.inside("c1", "dd", "if=/dev/urandom", "of=/root/large", "bs=1M", "count=32")
    machines.run("atoll", "exec", "c1", "--", "sh", "-c", "cat >/root/writer", stdin=WRITER)
    machines.inside("c1", "sh", "-c", "setsid sh /root/writer >/dev/null 2>&1 </dev/null &")
    wait_until(lambda: machines.try_("atoll", "exec", "c1", "--", "test", "-e", "/root/second").returncode == 0, "it writes")
    for name in ("s0", "s1"):
        body = json.dumps({"name": name})
        began = time.monotonic()
        ended = json.loads(machines.run("atoll", "query", "--wait", "-X", "POST", "-d", body, "/1.0/instances/c1/snapshots"))
        assert ended["err"] == "", ended
        assert 0 < ended["metadata"]["atoll_freeze_ms"] < 1000 * (time.monotonic() - began)
        assert machines.listed("ns") == [["c1", "RUNNING"]]
    last = 10**9
    for name in ("s1", "s0"):
        machines.run("atoll", "restore", "c1", name)
        assert machines.listed("ns") == [["c1", "RUNNING"]]
        first, second = (int(machines.inside("c1", "cat", f"/root/{each}")) for each in ("first", "second"))
        assert first - 1 <= second <= first < last
        last = first


def test_the_files_of_lxd_are_where_scripts_look(machines: Daemon) -> None:
    machines.run("atoll", "init", "tiny", "c1")
    machines.run("atoll", "snapshot", "c1", "s0")
    machines.run("atoll", "rename", "c1", "c2")
    assert (machines.dir / "snapshots/c2/s0").is_dir()
    machines.run("atoll", "delete", "c2/s0")
    assert os.listdir(machines.dir / "snapshots") == []
