"""Metrics as text: LXD's names and labels, well-formed whatever guests name their interfaces."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from atoll.drivers.instance.contract import DiskTraffic, Measures, Memory
from atoll.services import metrics_text
from atoll.services.metrics_text import Filesystem, Measured

GIB = 1 << 30
COUNTERS = {"bytes_received": 1, "packets_dropped_outbound": 2, "errors_sent": 3}
SAMPLE = re.compile(r'(lxd_\w+)\{((?:\w+="(?:[^"\\\n]|\\[\\"n])*",?)+)\} (\d+(?:\.\d+)?(?:e-?\d+)?)')
DOCUMENTED = Path(__file__).parent / "lxd_5_0_metrics.txt"


def measured(name: str = "c1", *, nics: tuple[str, ...] = ("lo", "eth0"), memory: Memory | None = None) -> Measured:
    measures = Measures(
        processes=3,
        cpu_ns={("1", "user"): 1_500_000_000, ("0", "system"): 20, ("0", "user"): 0},
        memory=memory or Memory(used=GIB, limit=2 * GIB, cached=GIB // 2, active_anon=1, active_file=2),
        disks={"vda": DiskTraffic(1, 2, 3, 4)},
        nics=dict.fromkeys(nics, COUNTERS),
    )
    return Measured("default", name, "container", measures, [Filesystem("/", "ext4", 30, 20, 10)], 4 * GIB)


def samples(text: str) -> dict[str, str]:
    """Series to value; each line is checked, and each series is there once and in the block of its name."""
    found: dict[str, str] = {}
    family = ""
    done: set[str] = set()
    *lines, end = text.splitlines()
    assert end == "# EOF"
    for line in lines:
        if line.startswith("# HELP "):
            family = line.split()[2]
            assert family not in done
            done.add(family)
        elif line.startswith("# TYPE "):
            assert line.split()[2] == family and line.split()[3] in ("counter", "gauge")
        else:
            match = SAMPLE.fullmatch(line)
            assert match and match[1] == family, line
            series = line.rpartition(" ")[0]
            assert series not in found
            found[series] = match[3]
    return found


def test_all_documented_metrics_of_containers_and_no_others() -> None:
    names = {line.partition("{")[0] for line in samples(metrics_text.render([measured()]))}
    assert names == set(DOCUMENTED.read_text().split())


def test_series_are_those_of_lxd() -> None:
    found = samples(metrics_text.render([measured()]))
    rest = 'name="c1",project="default",type="container"'
    assert found[f'lxd_cpu_seconds_total{{cpu="1",mode="user",{rest}}}'] == "1.5"
    assert found[f'lxd_cpu_seconds_total{{cpu="0",mode="system",{rest}}}'] == "2e-08"
    assert found[f'lxd_disk_writes_completed_total{{device="vda",{rest}}}'] == "4"
    assert found['lxd_filesystem_avail_bytes{device="",fstype="ext4",mountpoint="/",name="c1",project="default"}'] == "10"
    assert found[f"lxd_memory_Active_bytes{{{rest}}}"] == "3"
    assert found[f'lxd_network_transmit_drop_total{{device="eth0",{rest}}}'] == "2"
    assert found[f"lxd_procs_total{{{rest}}}"] == "3"


@pytest.mark.parametrize(
    ("memory", "total", "free", "available"),
    [
        (Memory(used=GIB, limit=2 * GIB, cached=GIB // 2), 2 * GIB, GIB, GIB + GIB // 2),
        (Memory(used=GIB), 4 * GIB, 3 * GIB, 3 * GIB),
        (Memory(used=3 * GIB, limit=2 * GIB), 2 * GIB, 0, 0),
        (Memory(used=GIB, limit=9 * GIB, cached=GIB), 4 * GIB, 3 * GIB, 4 * GIB),
    ],
)
def test_what_memory_is_left(memory: Memory, total: int, free: int, available: int) -> None:
    found = samples(metrics_text.render([measured(memory=memory)]))
    rest = '{name="c1",project="default",type="container"}'
    assert [found[f"lxd_memory_Mem{name}_bytes{rest}"] for name in ("Total", "Free", "Available")] == [
        str(total), str(free), str(available),
    ]  # fmt: skip


def test_a_guest_cannot_say_more_than_a_name() -> None:
    hostile = ('a"} 1', "back\\slash", "line\nlxd_procs_total 9", "x" * 999)
    found = samples(metrics_text.render([measured(nics=hostile)]))
    assert sum(series.startswith("lxd_network_receive_bytes_total") for series in found) == len(hostile)
    assert not any(len(series) > 200 for series in found)
    many = samples(metrics_text.render([measured(nics=tuple(f"n{number}" for number in range(5000)))]))
    assert sum(series.startswith("lxd_network_receive_bytes_total") for series in many) == 64


def test_nothing_runs() -> None:
    assert metrics_text.render([]) == "# EOF\n"
