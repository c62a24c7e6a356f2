"""Which processes of a box are the daemon's, and which are kept for its instances."""

import os

from atollbench import processes
from atollbench.processes import Process

INIT = 10


def process(pid: int, parent: int, name: str, title: str = "") -> Process:
    return Process(pid=pid, parent=parent, name=name, title=title or name, rss=2_000_000, pss=1_000_000)


BOX = [
    process(INIT, 9, "box", "/bin/bash box atolld"),
    process(11, INIT, "lxcfs"),
    process(12, INIT, "atolld", "python atolld"),
    process(13, 12, "atolld", "python atolld"),
    process(14, 12, "dnsmasq"),
    process(20, INIT, "lxc-start", "[lxc monitor] /state/containers c1"),
    process(21, 13, "lxc-start", "[lxc monitor] /state/containers c2"),
]


def pids(found: list[Process]) -> set[int]:
    return {one.pid for one in found}


def test_the_daemons_helpers_count_as_the_daemon() -> None:
    assert pids(processes.daemon_of(BOX, 12)) == {12, 13}


def test_monitors_count_apart_even_below_the_daemon() -> None:
    assert pids(processes.monitors_of(BOX, 12, INIT)) == {20, 21}


def test_a_helper_for_each_instance_is_not_overlooked() -> None:
    assert 30 in pids(processes.monitors_of([*BOX, process(30, INIT, "sleep")], 12, INIT))


def test_a_helpers_helper_is_found_whatever_its_pid() -> None:
    assert pids(processes.daemon_of([*BOX, process(5, 13, "python")], 12)) == {5, 12, 13}


def test_memory_is_counted_in_megabytes() -> None:
    assert processes.memory(BOX[:3]) == processes.Memory(rss=6.0, pss=3.0)


def test_this_process_is_found_with_its_memory() -> None:
    own = next(one for one in processes.in_namespace_of(os.getpid()) if one.pid == os.getpid())
    assert own.parent == os.getppid()
    assert own.rss > 5_000_000
