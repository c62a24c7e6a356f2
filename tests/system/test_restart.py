"""A daemon that is killed at any moment: what runs is not disturbed, and its successor puts right what was half done."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import audit
import pytest
import tracing
from box import SECONDS, Daemon

pytestmark = [pytest.mark.system, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

MOMENTS = 4
"""How many moments of each operation, evenly spread, a kill is tried at."""


@dataclass(frozen=True)
class Deed:
    """An operation on the instance `x`: what has to be before it, itself, and system calls in it (name, which one) to kill at."""

    before: tuple[str, ...]
    command: str
    calls: tuple[tuple[str, int], ...]


_RUNS = ("launch tiny x",)
_SAVED = ("init tiny x", "snapshot x s")
_SAVED_RUNNING = ("launch tiny x", "snapshot x s")

DEEDS = {
    "create": Deed((), "init tiny x", (("mkdir", 3), ("fdatasync", 1), ("fdatasync", 2), ("symlink", 1), ("renameat2", 1))),
    "launch": Deed((), "launch tiny x", (("move_mount", 2), ("fdatasync", 4))),
    "start": Deed(("init tiny x",), "start x", (("mkdir", 1), ("move_mount", 1), ("rename", 1), ("rename", 2), ("fdatasync", 1))),
    "stop": Deed(_RUNS, "stop --force x", (("fdatasync", 1), ("umount2", 1))),
    "restart": Deed(_RUNS, "restart --force x", (("umount2", 1), ("fdatasync", 2), ("move_mount", 1))),
    "snapshot": Deed(("init tiny x",), "snapshot x s", (("mkdir", 1), ("mkdir", 4), ("fdatasync", 1), ("renameat2", 2))),
    "snapshot-running": Deed(_RUNS, "snapshot x s", (("mkdirat", 1), ("unlink", 1), ("renameat2", 2))),
    "restore": Deed(_SAVED_RUNNING, "restore x s", (("mkdir", 1), ("renameat2", 1), ("fdatasync", 1), ("fdatasync", 4))),
    "delete": Deed(_SAVED, "delete x", (("fdatasync", 1), ("rename", 1), ("rename", 3), ("unlinkat", 2), ("rmdir", 1))),
}


@pytest.fixture(scope="module")
def witness(daemon: Daemon) -> Callable[[], None]:
    """An instance that runs all the time; the function makes sure that nothing happened to it."""
    daemon.run("atoll", "launch", "tiny", "witness")
    pid, address = daemon.init_pid("witness"), daemon.address("witness")

    def look() -> None:
        assert (daemon.init_pid("witness"), daemon.address("witness")) == (pid, address)
        assert daemon.inside("witness", "hostname") == "witness"

    return look


@pytest.fixture
def prepared(daemon: Daemon, witness: Callable[[], None], request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """The daemon, with the deed's instance as it has to be. After the test: audited, `x` removed, audited."""
    try:
        for command in DEEDS[request.param].before:
            daemon.run("atoll", *command.split())
        yield daemon
        daemon.kill()
        daemon.start()
        audit.check(daemon)
        witness()
    finally:
        if ["x"] in daemon.listed("n"):
            daemon.run("atoll", "delete", "--force", "x")
    audit.check(daemon)


@pytest.mark.parametrize("moment", range(MOMENTS))
@pytest.mark.parametrize(("prepared", "deed"), [(name, name) for name in DEEDS], indirect=["prepared"])
def test_killed_after_a_while(prepared: Daemon, deed: str, moment: int) -> None:
    """The first tenth of a second is when most is done."""
    client = prepared.begin("atoll", *DEEDS[deed].command.split())
    time.sleep(0.02 + 0.12 * (moment + 0.5) / MOMENTS)
    prepared.kill()
    client.wait(SECONDS)


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize(
    ("prepared", "deed", "call", "number"),
    [(name, name, *call) for name, deed in DEEDS.items() for call in deed.calls],
    indirect=["prepared"],
)
def test_killed_in_a_system_call(prepared: Daemon, deed: str, call: str, number: int) -> None:
    """strace kills the process, the daemon or a program that it runs, that makes the call for the nth time in its thread."""
    with tracing.attached(prepared.pid, f"trace={call}", f"inject={call}:signal=SIGKILL:when={number}"):
        prepared.begin("atoll", *DEEDS[deed].command.split()).wait(SECONDS)


def test_a_daemon_that_ends_leaves_instances_alone(daemon: Daemon, witness: Callable[[], None]) -> None:
    daemon.terminate()
    daemon.start()
    witness()
    audit.check(daemon)


def test_an_instance_that_ended_unseen_is_put_away(daemon: Daemon, witness: Callable[[], None]) -> None:
    daemon.run("atoll", "launch", "tiny", "y")
    pid = daemon.init_pid("y")
    daemon.kill()
    daemon.run("kill", "-9", str(pid))
    daemon.start()
    audit.check(daemon)
    witness()
    daemon.run("atoll", "delete", "--force", "y")


def test_after_a_reboot_runs_what_ran(daemon: Daemon, witness: Callable[[], None]) -> None:
    """Last in this file: the witness gets another init."""
    witness()
    daemon.run("atoll", "init", "tiny", "off")
    address = daemon.address("witness")
    daemon.reboot()
    audit.check(daemon)
    assert daemon.listed("ns") == [["off", "STOPPED"], ["witness", "RUNNING"]]
    assert daemon.address("witness") == address
