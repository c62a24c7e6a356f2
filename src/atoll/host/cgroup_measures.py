"""What monitoring counts of control groups, of v1 and v2: CPU time, the parts of memory, traffic with disks. Blocking."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from atoll.host import cgroup
from atoll.host.cgroup import Layout

_BIGGEST = 1 << 18
"""Bytes of a control file; the longest has a line for each of up to thousands of CPUs."""

_NO_LIMIT = 1 << 62

_PARTS = {
    "active_anon": ("total_active_anon", "active_anon"),
    "active_file": ("total_active_file", "active_file"),
    "inactive_anon": ("total_inactive_anon", "inactive_anon"),
    "inactive_file": ("total_inactive_file", "inactive_file"),
    "cached": ("total_cache", "file"),
    "dirty": ("total_dirty", "file_dirty"),
    "mapped": ("total_mapped_file", "file_mapped"),
    "rss": ("total_rss", "anon"),
    "shmem": ("total_shmem", "shmem"),
    "unevictable": ("total_unevictable", "unevictable"),
    "writeback": ("total_writeback", "file_writeback"),
}
"""Part of memory → its name in memory.stat of v1 (with the groups below) and of v2."""


def cpu_times(layout: Layout, group: str) -> dict[tuple[str, str], int]:
    """Nanoseconds by (CPU, "user" or "system"). v2 does not count them by CPU: there all of it is CPU "0"'s."""
    if "cpuacct" in layout.v1:
        rows = (line.split() for line in _read(layout, "cpuacct", group, "cpuacct.usage_all").splitlines()[1:])
        return {
            (cpu, mode): int(spent)
            for cpu, *both in rows
            for mode, spent in zip(("user", "system"), both, strict=False)
            if spent.isdecimal()
        }
    stat = cgroup.parse_flat(_read(layout, "cpu", group, "cpu.stat"))
    return {("0", mode): stat[f"{mode}_usec"] * 1000 for mode in ("user", "system") if f"{mode}_usec" in stat}


def memory(layout: Layout, group: str) -> dict[str, int] | None:
    """Bytes by part of memory, with `used`, `swap`, the number of `oom_kills`, and `limit` where there is one. None for a group
    that is gone."""
    old = layout.version("memory") == 1
    stat = cgroup.parse_flat(_read(layout, "memory", group, "memory.stat"))
    if not stat:
        return None
    found = {part: stat.get(names[0 if old else 1], 0) for part, names in _PARTS.items()}
    found["used"] = _number(layout, group, "memory.usage_in_bytes" if old else "memory.current")
    found["swap"] = stat.get("total_swap", 0) if old else _number(layout, group, "memory.swap.current")
    events = _read(layout, "memory", group, "memory.oom_control" if old else "memory.events")
    found["oom_kills"] = cgroup.parse_flat(events).get("oom_kill", 0)
    limit = stat.get("hierarchical_memory_limit", 0) if old else _number(layout, group, "memory.max")
    return {**found, "limit": limit} if 0 < limit < _NO_LIMIT else found


def disk_traffic(layout: Layout, group: str) -> dict[str, dict[str, int]]:
    """By the host's number of the disk (`8:0`): `read_bytes`, `reads`, `written_bytes`, `writes`."""
    if "blkio" in layout.v1:
        return _old_traffic(layout, group)
    found: dict[str, dict[str, int]] = {}
    for line in _read(layout, "io", group, "io.stat").splitlines():
        disk, *pairs = line.split()
        named = dict(pair.partition("=")[::2] for pair in pairs)
        words = {"read_bytes": "rbytes", "reads": "rios", "written_bytes": "wbytes", "writes": "wios"}
        found[disk] = {name: int(named.get(word, "0")) for name, word in words.items()}
    return found


def _old_traffic(layout: Layout, group: str) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    files = {
        "blkio.throttle.io_service_bytes_recursive": {"Read": "read_bytes", "Write": "written_bytes"},
        "blkio.throttle.io_serviced_recursive": {"Read": "reads", "Write": "writes"},
    }
    for file, words in files.items():
        for disk, word, count in _triples(_read(layout, "blkio", group, file)):
            if word in words:
                found.setdefault(disk, {})[words[word]] = count
    return found


def _triples(text: str) -> Iterator[tuple[str, str, int]]:
    """The lines `8:0 Read 4096`; others are totals."""
    for words in map(str.split, text.splitlines()):
        if len(words) == 3 and words[2].isdecimal():
            yield words[0], words[1], int(words[2])


def disk_names(numbers: Mapping[str, object]) -> dict[str, str]:
    """The host's names of disks by their numbers; those that have none any more are absent."""
    found = {}
    for number in numbers:
        try:
            found[number] = os.readlink(f"/sys/dev/block/{number}").rpartition("/")[2]
        except OSError:
            continue
    return found


def _number(layout: Layout, group: str, file: str) -> int:
    return cgroup.read_number(f"{layout.path('memory', group)}/{file}")


def _read(layout: Layout, controller: str, group: str, file: str) -> str:
    """A control file's text; "" where the host, or the group, has it not."""
    if not layout.version(controller):
        return ""
    try:
        fd = os.open(f"{layout.path(controller, group)}/{file}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, _BIGGEST).decode()
    except OSError:
        return ""
    finally:
        os.close(fd)
