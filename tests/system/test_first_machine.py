"""What everybody does first, by our own client and by the one made for LXD."""

from __future__ import annotations

import json
import os
import re
from datetime import datetime

import audit
import pytest
from box import Daemon, wait_until

pytestmark = [pytest.mark.system, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

CLIENTS = pytest.mark.parametrize("client", ["atoll", "lxc"])


@CLIENTS
def test_from_launch_to_delete(machines: Daemon, client: str) -> None:
    machines.run(client, "launch", "tiny", "one")
    assert machines.listed("nsS", program=client) == [["one", "RUNNING", "0"]]
    assert machines.run(client, "exec", "one", "--", "hostname") == "one\n"
    audit.check(machines)
    machines.run(client, "stop", "one")
    assert machines.listed("ns", program=client) == [["one", "STOPPED"]]
    audit.check(machines)
    machines.run(client, "start", "one")
    machines.run(client, "delete", "--force", "one")
    assert machines.listed("ns", program=client) == []
    audit.check(machines)


@pytest.mark.parametrize("form", ["csv", "json", "yaml", "table", "compact"])
def test_both_clients_list_the_same(machines: Daemon, form: str) -> None:
    machines.run("atoll", "launch", "tiny", "one")
    machines.run("atoll", "init", "tiny", "two")
    machines.address("one")
    machines.address("one", version=6)
    ours, theirs = (machines.run(client, "list", "--format", form) for client in ("atoll", "lxc"))
    if form == "json":
        assert [_still(row) for row in json.loads(ours)] == [_still(row) for row in json.loads(theirs)]
    elif form == "yaml":
        assert _names(ours) == _names(theirs)
    else:
        assert ours == theirs


def _still(row: dict[str, object]) -> dict[str, object]:
    """What does not change between two looks; of times, what both mean: one of the clients writes no trailing zeros."""
    kept = {key: value for key, value in row.items() if key not in ("state", "backups", "snapshots")}
    return kept | {key: datetime.fromisoformat(str(kept[key])) for key in ("created_at", "last_used_at")}


def _names(text: str) -> list[str]:
    return re.findall(r"^ *(?:- )?name: (\w+)$", text, re.MULTILINE)


def test_exec_passes_everything_through(machines: Daemon) -> None:
    machines.run("atoll", "launch", "tiny", "one")
    assert machines.run("atoll", "exec", "one", "--", "cat", stdin="a\nb") == "a\nb"
    assert machines.run("atoll", "exec", "one", "--env", "X=1 2", "--", "sh", "-c", 'echo "$X"') == "1 2\n"
    failed = machines.try_("atoll", "exec", "one", "--", "sh", "-c", "echo no >&2; exit 7")
    assert (failed.returncode, failed.stdout, failed.stderr) == (7, "", "no\n")
    assert machines.try_("atoll", "exec", "one", "--", "nothing-like-this").returncode == 127


@CLIENTS
def test_snapshot_and_restore(machines: Daemon, client: str) -> None:
    machines.run(client, "launch", "tiny", "one")
    machines.inside("one", "touch", "/before")
    machines.run(client, "snapshot", "one", "clean")
    machines.inside("one", "sh", "-c", "rm /before; touch /after")
    machines.run(client, "restore", "one", "clean")
    assert machines.listed("nsS", program=client) == [["one", "RUNNING", "1"]]
    assert machines.inside("one", "ls", "/").split().count("before") == 1
    assert machines.try_("atoll", "exec", "one", "--", "ls", "/after").returncode == 1
    audit.check(machines)


def test_a_copy(machines: Daemon) -> None:
    """A copy has its own files; its source keeps its own."""
    machines.run("atoll", "launch", "tiny", "one")
    machines.inside("one", "sh", "-c", "echo 1 > /number")
    machines.run("lxc", "copy", "one", "two", "--instance-only")
    machines.run("atoll", "start", "two")
    machines.inside("two", "sh", "-c", "echo 2 > /number")
    assert (machines.inside("one", "cat", "/number"), machines.inside("two", "cat", "/number")) == ("1", "2")


def test_a_guest_ends_and_reboots_itself(machines: Daemon) -> None:
    machines.run("atoll", "launch", "tiny", "one")
    machines.run("atoll", "config", "set", "one", "limits.processes", "77")
    before = machines.init_pid("one")
    machines.try_("atoll", "exec", "one", "--", "reboot")
    wait_until(lambda: machines.init_pid("one") not in (before, 0, -1), "it has rebooted")
    audit.check(machines)
    machines.try_("atoll", "exec", "one", "--", "poweroff")
    wait_until(lambda: machines.listed("s") == [["STOPPED"]], "it has ended")
    audit.check(machines)


def test_many_at_once(machines: Daemon) -> None:
    names = [f"m{number}" for number in range(8)]
    for name in names:
        machines.run("atoll", "init", "tiny", name)
    machines.run("atoll", "start", *names)
    assert machines.listed("ns") == [[name, "RUNNING"] for name in names]
    audit.check(machines)
    machines.run("atoll", "stop", *names)
    audit.check(machines)
    machines.run("atoll", "delete", *names)
    audit.check(machines)
