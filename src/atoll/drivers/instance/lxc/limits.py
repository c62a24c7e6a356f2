"""A machine's limits as control group files, the same for its configuration and for a running machine."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

from atoll.drivers.instance.contract import Limits
from atoll.host import cgroup
from atoll.host.cgroup import Layout, Setting

HUGE_PAGES = ("64KB", "1MB", "2MB", "1GB")
"""Sizes of huge pages that can be limited; a kernel has a file for those that it knows."""


def settings(limits: Limits, layout: Layout) -> list[Setting]:
    """What has to be written for what is limited. Controllers that the host has not are left out."""
    return [setting for setting in _all(limits, layout) if _governs(layout, setting.controller)]


def _governs(layout: Layout, controller: str) -> bool:
    """Whether a controller can be used: where both versions are mounted, liblxc uses the first alone."""
    return layout.version(controller) == 1 or (layout.version(controller) == 2 and layout.is_unified)


def _all(limits: Limits, layout: Layout) -> list[Setting]:
    return [*_cpu(limits, layout), *_memory(limits, layout), *_others(limits, layout), *_disks(limits, layout)]


def apply(layout: Layout, group: str, limits: Limits) -> None:
    """Bring a running machine's group to these limits; what is not limited any more is set free. OSError if refused."""
    _require_memory(layout, group, limits)
    listed = settings(limits, layout)
    wanted = {(setting.file, setting.value.split(" ")[0] if setting.file in _BY_DISK else ""): setting for setting in listed}
    free = {(setting.file, ""): setting for setting in unlimited(layout)}
    standing = {(setting.file, setting.value.split(" ")[0]): setting for setting in _unlimited_disks(layout, group)}
    every = {**free, **standing, **wanted}.values()
    cgroup.apply(layout, group, [s for s in every if os.path.exists(f"{layout.path(s.controller, group)}/{s.file}")])


def _require_memory(layout: Layout, group: str, limits: Limits) -> None:
    """EBUSY when more is in use than a hard limit allows, and cannot be had back: version 1 says so, version 2 would kill."""
    if layout.version("memory") != 2 or limits.memory_bytes is None or limits.memory_soft:
        return
    stat = cgroup.parse_flat(cgroup.read_text(layout.path("memory", f"{group}/memory.stat")))
    swappable = limits.memory_swap and cgroup.read_number(layout.path("memory", f"{group}/memory.swap.max"))
    if not swappable and stat.get("anon", 0) + stat.get("shmem", 0) > limits.memory_bytes:
        raise OSError(errno.EBUSY, "memory.max: more is in use")


def pin(layout: Layout, groups: Mapping[str, str]) -> list[str]:
    """Give running machines' groups these CPUs; empty: all. Returns a sentence for each that the kernel refused; a group that is
    gone is none."""
    if not layout.version("cpuset"):
        return []
    every = all_cpus(layout) if layout.version("cpuset") == 1 else ""
    refused = []
    for group, cpus in groups.items():
        try:
            cgroup.write(f"{layout.path('cpuset', group)}/cpuset.cpus", cpus or every)
        except FileNotFoundError:
            continue
        except OSError as error:
            refused.append(str(error))
    return refused


def absent(layout: Layout, group: str) -> frozenset[str]:
    """Files of limits that this kernel was built without, by a look at groups made for it."""
    missing: set[str] = set()
    for controller, files in (*_FREE[1].items(), ("blkio", _THROTTLES)):
        if layout.version(controller) == 1:
            folder = layout.path(controller, group)
            os.makedirs(folder, exist_ok=True)
            missing |= {name for name in files if not os.path.exists(f"{folder}/{name}")}
    return frozenset(missing)


def unenforceable(limits: Limits, layout: Layout, absent_: frozenset[str]) -> list[str]:
    """Kinds of limits that are asked for and that this host cannot hold: it has not the controller, or not the file. Priorities
    of network traffic (net_prio) reach no interface of a machine that has a network namespace of its own."""
    missing = {each.controller for each in _all(limits, layout) if not _governs(layout, each.controller) or each.file in absent_}
    return sorted(missing | ({"net_prio"} if limits.network_priority else set()))


def unlimited(layout: Layout) -> list[Setting]:
    """Every limit's file, with the value that limits nothing."""
    found = []
    for controller, values in _FREE[1].items():
        found += [Setting(controller, *pair) for pair in values.items() if layout.version(controller) == 1]
    for controller, values in _FREE[2].items():
        found += [Setting(controller, *pair) for pair in values.items() if layout.version(controller) == 2]
    suffix, most = ("limit_in_bytes", "-1") if layout.version("hugetlb") == 1 else ("max", "max")
    if layout.version("hugetlb"):
        found += [Setting("hugetlb", f"hugetlb.{size}.{suffix}", most) for size in HUGE_PAGES]
    if layout.version("cpuset"):
        found.append(Setting("cpuset", "cpuset.cpus", all_cpus(layout) if layout.version("cpuset") == 1 else ""))
    return found


_FREE = {
    1: {
        "cpu": {"cpu.cfs_quota_us": "-1", "cpu.shares": "1024"},
        "memory": {
            "memory.limit_in_bytes": "-1",
            "memory.soft_limit_in_bytes": "-1",
            "memory.swappiness": "60",
        },
        "pids": {"pids.max": "max"},
        "blkio": {"blkio.bfq.weight": "100"},
    },
    2: {
        "cpu": {"cpu.max": "max 100000", "cpu.weight": "100"},
        "memory": {"memory.max": "max", "memory.low": "0", "memory.swap.max": "max"},
        "pids": {"pids.max": "max"},
        "io": {"io.weight": "default 100"},
    },
}


def all_cpus(layout: Layout) -> str:
    """The processors that the hierarchy's base may use."""
    with open(layout.path("cpuset", "cpuset.cpus")) as file:
        return file.read().strip()


def _cpu(limits: Limits, layout: Layout) -> list[Setting]:
    found = []
    if limits.cpu_set:
        found.append(Setting("cpuset", "cpuset.cpus", limits.cpu_set))
    if layout.version("cpu") == 1:
        if limits.cpu_quota_us is not None:
            found.append(Setting("cpu", "cpu.cfs_period_us", str(limits.cpu_period_us)))
            found.append(Setting("cpu", "cpu.cfs_quota_us", str(limits.cpu_quota_us)))
        if limits.cpu_shares is not None:
            found.append(Setting("cpu", "cpu.shares", str(limits.cpu_shares)))
        return found
    if limits.cpu_quota_us is not None:
        found.append(Setting("cpu", "cpu.max", f"{limits.cpu_quota_us} {limits.cpu_period_us}"))
    if limits.cpu_shares is not None:
        found.append(Setting("cpu", "cpu.weight", str(weight_of(limits.cpu_shares))))
    return found


_THROTTLES = {
    "blkio.throttle.read_bps_device": "read_bytes",
    "blkio.throttle.read_iops_device": "read_requests",
    "blkio.throttle.write_bps_device": "write_bytes",
    "blkio.throttle.write_iops_device": "write_requests",
}
_BY_DISK = (*_THROTTLES, "io.max")
"""Files with a line for each disk."""

_IO_MAX = {"rbps": "read_bytes", "riops": "read_requests", "wbps": "write_bytes", "wiops": "write_requests"}


def _disks(limits: Limits, layout: Layout) -> list[Setting]:
    found = []
    for disk, limit in limits.disks.items():
        if layout.version("blkio") == 1:
            found += [
                Setting("blkio", file, f"{disk} {value}") for file, name in _THROTTLES.items() if (value := getattr(limit, name))
            ]
        else:
            words = (f"{word}={getattr(limit, name) or 'max'}" for word, name in _IO_MAX.items())
            found.append(Setting("io", "io.max", f"{disk} {' '.join(words)}"))
    return found


def _unlimited_disks(layout: Layout, group: str) -> list[Setting]:
    """What frees each disk that has a limit now."""
    found = []
    if layout.version("blkio") == 1:
        for file in _THROTTLES:
            lines = cgroup.read_text(f"{layout.path('blkio', group)}/{file}").splitlines()
            found += [Setting("blkio", file, f"{line.split(' ')[0]} 0") for line in lines]
    elif layout.version("io") == 2:
        free = " ".join(f"{word}=max" for word in _IO_MAX)
        lines = cgroup.read_text(f"{layout.path('io', group)}/io.max").splitlines()
        found += [Setting("io", "io.max", f"{line.split(' ')[0]} {free}") for line in lines]
    return found


def weight_of(shares: int) -> int:
    """A v1 weight of 2..262144 on v2's scale of 1..10000, as runtimes convert it."""
    return max(1, min(10_000, 1 + (max(2, shares) - 2) * 9999 // 262_142))


def _memory(limits: Limits, layout: Layout) -> list[Setting]:
    old = layout.version("memory") == 1
    found = []
    if limits.memory_bytes is not None:
        soft, hard = ("memory.soft_limit_in_bytes", "memory.limit_in_bytes") if old else ("memory.low", "memory.max")
        found.append(Setting("memory", soft if limits.memory_soft else hard, str(limits.memory_bytes)))
    if old:
        if not limits.memory_swap:
            found.append(Setting("memory", "memory.swappiness", "0"))
        elif limits.memory_swap_priority is not None:
            found.append(Setting("memory", "memory.swappiness", str(70 - limits.memory_swap_priority)))
    elif not limits.memory_swap:
        found.append(Setting("memory", "memory.swap.max", "0"))
    return found


def _others(limits: Limits, layout: Layout) -> list[Setting]:
    found = []
    if limits.processes is not None:
        found.append(Setting("pids", "pids.max", str(limits.processes)))
    if limits.disk_priority is not None:
        if layout.version("blkio") == 1:
            weight = max(10, min(1000, 100 * limits.disk_priority))
            found.append(Setting("blkio", "blkio.bfq.weight", str(weight)))
        else:
            found.append(Setting("io", "io.weight", str(max(1, 100 * limits.disk_priority))))
    suffix = "limit_in_bytes" if layout.version("hugetlb") == 1 else "max"
    found += [Setting("hugetlb", f"hugetlb.{size}.{suffix}", str(count)) for size, count in limits.hugepages.items()]
    return found
