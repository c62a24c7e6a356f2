"""Limits hold, from the start or from the moment they are set, and the guest sees them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from box import Daemon, wait_until

pytestmark = [pytest.mark.system, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

MIB = 1 << 20


def memory(daemon: Daemon) -> int:
    """MiB of memory that the guest believes it has."""
    return int(daemon.inside("one", "sh", "-c", "grep MemTotal /proc/meminfo").split()[1]) // 1024


def cpus(daemon: Daemon) -> int:
    """CPUs that the guest believes it has."""
    return int(daemon.inside("one", "grep", "-c", "^processor", "/proc/cpuinfo"))


@pytest.fixture(params=["before", "while"])
def limit(machines: Daemon, request: pytest.FixtureRequest) -> object:
    """Sets limits of `one`, before it starts or while it runs."""

    def set_(*settings: str) -> None:
        if request.param == "before":
            machines.run("atoll", "launch", "tiny", "one", *(word for each in settings for word in ("--config", each)))
        else:
            machines.run("atoll", "launch", "tiny", "one")
            machines.run("atoll", "config", "set", "one", *settings)

    return set_


def test_memory(machines: Daemon, limit: object) -> None:
    limit("limits.memory=64MiB")  # type: ignore[operator]
    assert memory(machines) == 64
    eats = machines.try_("atoll", "exec", "one", "--", "dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1")
    assert eats.returncode == 137
    machines.run("atoll", "config", "unset", "one", "limits.memory")
    assert memory(machines) > 64


def test_cpus(machines: Daemon, limit: object) -> None:
    limit("limits.cpu=1")  # type: ignore[operator]
    assert cpus(machines) == 1
    assert len(machines.inside("one", "sh", "-c", "grep Cpus_allowed_list /proc/self/status").split()[1].split(",")) == 1
    machines.run("atoll", "config", "unset", "one", "limits.cpu")
    assert cpus(machines) == os.cpu_count()


def test_processes(machines: Daemon, limit: object) -> None:
    limit("limits.processes=20")  # type: ignore[operator]
    script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sleep 60 >/dev/null 2>&1 & done"
    assert "can't fork" in machines.try_("atoll", "exec", "one", "--", "sh", "-c", script).stderr


def test_a_share_of_a_cpu(machines: Daemon, limit: object) -> None:
    limit("limits.cpu.allowance=10ms/100ms")  # type: ignore[operator]
    used = "read u _ < /proc/uptime; i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; cat /proc/$$/stat"

    def is_throttled() -> bool:
        fields = machines.inside("one", "sh", "-c", used).rpartition(")")[2].split()
        assert int(fields[11]) > 0
        counts = [line.split() for text in _cpu_files(machines, "cpu.stat") for line in text.splitlines()]
        return any(int(count) for name, count in counts if name == "nr_throttled")

    wait_until(is_throttled, "it wanted more than it got")


def _cpu_files(daemon: Daemon, name: str) -> list[str]:
    return [daemon.run("sh", "-c", f"cat /sys/fs/cgroup/*/{daemon.mark}/payload/one/{name} 2>/dev/null || true")]


def test_a_profile_reaches_who_has_it(machines: Daemon) -> None:
    machines.run("atoll", "launch", "tiny", "one")
    machines.run("atoll", "profile", "create", "small")
    try:
        machines.run("atoll", "profile", "add", "one", "small")
        machines.run("atoll", "profile", "set", "small", "limits.memory", "48MiB")
        assert memory(machines) == 48
        machines.run("atoll", "profile", "set", "small", "limits.memory", "96MiB")
        assert memory(machines) == 96
        machines.run("atoll", "profile", "remove", "one", "small")
        assert memory(machines) > 96
    finally:
        machines.try_("atoll", "profile", "remove", "one", "small")
        machines.run("atoll", "profile", "delete", "small")


def test_what_is_shown(machines: Daemon) -> None:
    """Figures of the state agree with what the guest does."""
    machines.run("atoll", "launch", "tiny", "one")
    machines.inside("one", "sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")
    state = machines.query("/1.0/instances/one/state")
    assert state["cpu"]["usage"] > 10_000_000
    assert 0 < state["memory"]["usage"] < 64 * MIB
    assert 1 < state["processes"] < 20


def allowed(daemon: Daemon, name: str) -> str:
    """The CPUs that a guest's processes may use, as the kernel says."""
    return daemon.inside(name, "grep", "Cpus_allowed_list", "/proc/self/status").split()[1]


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two CPUs")
def test_cpus_are_shared_out(machines: Daemon) -> None:
    for name in ("one", "two"):
        machines.run("atoll", "launch", "tiny", name, "--config", "limits.cpu=1")
    assert {allowed(machines, "one"), allowed(machines, "two")} == {"0", "1"}
    machines.run("atoll", "config", "set", "one", "limits.cpu=1-1")
    assert (allowed(machines, "one"), allowed(machines, "two")) == ("1", "0")


def test_less_memory_than_is_in_use(machines: Daemon) -> None:
    machines.run("atoll", "launch", "tiny", "one", "--config", "limits.memory=64MiB")
    machines.run("atoll", "profile", "create", "tight")
    try:
        machines.run("atoll", "profile", "add", "one", "tight")
        refused = machines.try_("atoll", "config", "set", "one", "limits.processes=20", "limits.memory=4KiB")
        assert "more memory is in use" in refused.stderr
        machines.run("atoll", "config", "unset", "one", "limits.memory")
        wanted = {"limits.processes": "20", "limits.memory": "4KiB"}
        kept = machines.try_("atoll", "profile", "set", "tight", *(f"{key}={value}" for key, value in wanted.items()))
        assert "Instance: one: " in kept.stderr and "more memory is in use" in kept.stderr
        assert "max" in "".join(_cpu_files(machines, "pids.max"))  # all of it is taken back from an instance that cannot follow
        assert memory(machines) > 64
        assert machines.query("/1.0/profiles/tight")["config"] == wanted
    finally:
        machines.try_("atoll", "profile", "remove", "one", "tight")
        machines.run("atoll", "profile", "delete", "tight")


def test_traffic_with_a_disk(machines: Daemon, tmp_path: Path) -> None:
    """A megabyte and a half past the page cache, at a megabyte a second, from a file system of its own."""
    image = tmp_path / "disk.img"
    machines.run("sh", "-c", f"truncate -s 16M {image} && mkfs.ext4 -q {image}")
    loop = machines.run("losetup", "--find", "--show", str(image)).strip()
    try:
        machines.run("atoll", "launch", "tiny", "one")
        added = ("source=" + loop, "path=/mnt", "limits.read=1MB")
        machines.run("atoll", "config", "device", "add", "one", "data", "disk", *added)
        (limit,) = _cpu_files(machines, "blkio.throttle.read_bps_device")
        assert limit.split()[1] == "1000000"
        group = f"/sys/fs/cgroup/blkio/{machines.mark}/payload/one/cgroup.procs"
        read = f"echo $$ > {group} && exec dd if={loop} of=/dev/null iflag=direct bs=64K count=24 2>/dev/null"
        begin = time.monotonic()
        machines.run("sh", "-c", read)
        assert time.monotonic() - begin > 1
        machines.run("atoll", "config", "device", "unset", "one", "data", "limits.read")
        assert _cpu_files(machines, "blkio.throttle.read_bps_device") == [""]
        machines.run("atoll", "delete", "--force", "one")
    finally:
        machines.run("losetup", "--detach", loop)


def test_an_isolated_machine_keeps_its_ids(machines: Daemon) -> None:
    for name in ("one", "two"):
        machines.run("atoll", "init", "tiny", name, "--config", "security.idmap.isolated=true")
    seen: dict[str, set[str]] = {"one": set(), "two": set()}
    for name in ("two", "one", "two"):
        machines.run("atoll", "start", name)
        seen[name].add(machines.inside(name, "cat", "/proc/self/uid_map").split()[1])
        machines.run("atoll", "stop", "--force", name)
    assert len(seen["one"]) == len(seen["two"]) == 1
    assert seen["one"] != seen["two"]


def test_system_calls_that_are_denied(machines: Daemon) -> None:
    machines.run("atoll", "init", "tiny", "one", "--config", "security.syscalls.deny=mkdir\nmkdirat")
    machines.run("atoll", "config", "set", "one", "security.syscalls.deny_compat=true")
    machines.run("atoll", "start", "one")
    assert "Operation not permitted" in machines.try_("atoll", "exec", "one", "--", "mkdir", "/tmp/x").stderr
    assert machines.inside("one", "ls", "/tmp") == ""
