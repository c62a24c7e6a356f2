"""What monitoring counts of control groups, over trees of plain files as v1 and v2 have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from atoll.host import cgroup_measures
from atoll.host.cgroup import Layout

OLD_STAT = """cache 1
total_cache 5251072
total_rss 57344
total_shmem 4096
total_mapped_file 8192
total_dirty 12
total_writeback 13
total_swap 14
total_inactive_anon 15
total_active_anon 16
total_inactive_file 17
total_active_file 18
total_unevictable 19
hierarchical_memory_limit {limit}
"""
NEW_STAT = """anon 57344
file 5251072
file_mapped 8192
file_dirty 12
file_writeback 13
shmem 4096
inactive_anon 15
active_anon 16
inactive_file 17
active_file 18
unevictable 19
"""
PARTS = {
    "cached": 5251072, "rss": 57344, "shmem": 4096, "mapped": 8192, "dirty": 12, "writeback": 13, "swap": 14, "inactive_anon": 15,
    "active_anon": 16, "inactive_file": 17, "active_file": 18, "unevictable": 19, "used": 7000, "oom_kills": 2,
}  # fmt: skip
TRAFFIC = {"8:0": {"read_bytes": 4096, "reads": 1, "written_bytes": 8192, "writes": 2}}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / "g").mkdir(exist_ok=True)
        (folder / "g" / name).write_text(text)


@pytest.fixture
def old(tmp_path: Path) -> Layout:
    write(
        tmp_path,
        {
            "cpuacct.usage_all": "cpu user system\n0 10 20\n1 30 40\n",
            "memory.stat": OLD_STAT.format(limit=199999488),
            "memory.usage_in_bytes": "7000\n",
            "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
            "blkio.throttle.io_service_bytes_recursive": "8:0 Read 4096\n8:0 Write 8192\n8:0 Sync 1\nTotal 12288\n",
            "blkio.throttle.io_serviced_recursive": "8:0 Read 1\n8:0 Write 2\n8:0 Total 3\nTotal 3\n",
        },
    )
    return Layout(dict.fromkeys(("cpuacct", "memory", "blkio"), str(tmp_path)), {}, [str(tmp_path)])


@pytest.fixture
def new(tmp_path: Path) -> Layout:
    write(
        tmp_path,
        {
            "cpu.stat": "usage_usec 3\nuser_usec 1\nsystem_usec 2\n",
            "memory.stat": NEW_STAT,
            "memory.current": "7000\n",
            "memory.swap.current": "14\n",
            "memory.max": "199999488\n",
            "memory.events": "low 0\noom 3\noom_kill 2\n",
            "io.stat": "8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n",
        },
    )
    return Layout({}, dict.fromkeys(("cpu", "memory", "io"), str(tmp_path)), [str(tmp_path)])


@pytest.mark.parametrize("kind", ["old", "new"])
def test_memory_and_disks(kind: str, request: pytest.FixtureRequest) -> None:
    layout = request.getfixturevalue(kind)
    assert cgroup_measures.memory(layout, "g") == {**PARTS, "limit": 199999488}
    assert cgroup_measures.disk_traffic(layout, "g") == TRAFFIC


def test_no_limit_is_none(old: Layout, tmp_path: Path) -> None:
    write(tmp_path, {"memory.stat": OLD_STAT.format(limit=9223372036854771712)})
    assert cgroup_measures.memory(old, "g") == PARTS
    new = Layout({}, {"memory": str(tmp_path)}, [])
    write(tmp_path, {"memory.stat": NEW_STAT, "memory.max": "max\n"})
    assert "limit" not in (cgroup_measures.memory(new, "g") or {"limit": 0})


def test_cpu_time_by_cpu_where_it_is_counted(old: Layout) -> None:
    assert cgroup_measures.cpu_times(old, "g") == {
        ("0", "user"): 10, ("0", "system"): 20, ("1", "user"): 30, ("1", "system"): 40,
    }  # fmt: skip


def test_cpu_time_in_all(new: Layout) -> None:
    assert cgroup_measures.cpu_times(new, "g") == {("0", "user"): 1000, ("0", "system"): 2000}


@pytest.mark.parametrize("kind", ["old", "new"])
def test_a_group_that_is_gone(kind: str, request: pytest.FixtureRequest) -> None:
    layout = request.getfixturevalue(kind)
    assert cgroup_measures.memory(layout, "gone") is None
    assert cgroup_measures.cpu_times(layout, "gone") == {}
    assert cgroup_measures.disk_traffic(layout, "gone") == {}
    assert cgroup_measures.memory(Layout({}, {}, []), "g") is None, "a host without controllers"


def test_disks_are_named_as_the_host_does() -> None:
    assert cgroup_measures.disk_names({"9999:1": None}) == {}
