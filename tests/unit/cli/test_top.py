"""`top`: rates between answers, the order of rows, and tables for programs."""

from __future__ import annotations

from typing import Any

import pytest
from recorder import Recorder

from atoll.cli import arguments, usage
from atoll.cli.commands import top
from atoll.cli.errors import CommandError
from atoll.cli.tables.instances import COMMANDS

PATH = "GET /1.0/instances?recursion=2"


def instance(name: str, *, pid: int = 7, cpu: int = 0, received: int = 0, memory: int = 1024, **more: Any) -> dict[str, Any]:
    network = {
        "lo": {"type": "loopback", "counters": {"bytes_received": 10**9}},
        "eth0": {"type": "broadcast", "counters": {"bytes_received": received, "bytes_sent": 2 * received}},
    }
    state = {"pid": pid, "cpu": {"usage": cpu}, "memory": {"usage": memory}, "network": network, "processes": 3,
             "disk": {"root": {"usage": 4096}, "data": {"usage": -1}}}  # fmt: skip
    return {"name": name, "status": "Running", "state": state, **more}


def test_rates_are_differences_over_the_time_between():
    meter = usage.Meter()
    (first,) = meter.read([instance("a", cpu=10**9, received=100)], 10.0)
    assert (first.cpu, first.received) == (None, None)
    (second,) = meter.read([instance("a", cpu=2 * 10**9, received=300)], 12.0)
    assert (second.cpu, second.received, second.sent) == (50.0, 100.0, 200.0)
    assert (second.memory, second.disk, second.processes) == (1024, 4096, 3)


def test_another_life_of_an_instance_has_no_rates_yet():
    meter = usage.Meter()
    meter.read([instance("a", pid=7, cpu=10**9)], 1.0)
    (restarted,) = meter.read([instance("a", pid=8, cpu=5)], 2.0)
    assert restarted.cpu is None


def test_stopped_instances_and_empty_states_are_left_out():
    stopped = {"name": "s", "status": "Stopped", "state": {"pid": 0, "network": None, "cpu": {}, "memory": None}}
    assert usage.Meter().read([stopped, {"name": "x", "state": None}], 1.0) == []


def test_the_same_name_in_two_projects():
    meter = usage.Meter()
    meter.read([instance("a", project="p"), instance("a", project="q", cpu=10**9)], 1.0)
    both = meter.read([instance("a", project="p", cpu=10**9), instance("a", project="q", cpu=10**9)], 2.0)
    assert [each.cpu for each in both] == [100.0, 0.0]


@pytest.mark.parametrize(
    ("order", "names"), [("cpu", ["b", "a", "c10"]), ("memory", ["c10", "a", "b"]), ("name", ["a", "b", "c10"])]
)
def test_orders(order: str, names: list[str]):
    meter = usage.Meter()
    meter.read([instance("c10", memory=9), instance("a", memory=5), instance("b", memory=1)], 1.0)
    found = meter.read([instance("c10", memory=9), instance("a", memory=5), instance("b", memory=1, cpu=10**9)], 2.0)
    assert [each.name for each in usage.ordered(found, order)] == names


class Call:
    """What the command needs of a call."""

    def __init__(self, words: list[str], server: Recorder) -> None:
        self.flags = arguments.Flags(COMMANDS["top"].flags)
        self.arguments = arguments.parse(words, self.flags)
        self._server = server

    def split_remote(self, words: list[str]) -> tuple[Recorder, list[str]]:
        return self._server, words


def test_a_table_for_programs_tells_the_rates_of_its_interval(capsys: pytest.CaptureFixture[str]):
    server = Recorder({PATH: [[instance("web"), instance("db")], [instance("web", cpu=10**9), instance("db")]]})
    top.run(Call(["--format", "csv", "--interval", "0.2", "web"], server))  # type: ignore[arg-type]
    (line,) = capsys.readouterr().out.splitlines()
    cells = line.split(",")
    assert cells[:2] == ["web", "RUNNING"]
    assert 100 < float(cells[2].rstrip("%")) <= 500
    assert len(server.requests) == 2


@pytest.mark.parametrize("words", [["--sort", "colour"], ["--interval", "0"], ["--interval", "x"], ["--format", "nice"]])
def test_bad_flags_ask_nothing_of_the_server(words: list[str]):
    server = Recorder({})
    with pytest.raises(CommandError):
        top.run(Call(words, server))  # type: ignore[arg-type]
    assert server.requests == []
