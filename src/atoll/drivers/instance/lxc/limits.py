"""A machine's limits as control group files, the same for its configuration and for a running machine."""

from __future__ import annotations

import os

from atoll.drivers.instance.contract import Limits
from atoll.host import cgroup
from atoll.host.cgroup import Layout, Setting


def settings(limits: Limits, layout: Layout) -> list[Setting]:
    """What has to be written for what is limited. Controllers that the host has not are left out."""
    wanted = [*_cpu(limits, layout), *_memory(limits, layout), *_others(limits, layout)]
    return [setting for setting in wanted if layout.version(setting.controller)]


def apply(layout: Layout, group: str, limits: Limits) -> None:
    """Bring a running machine's group to these limits; what is not limited any more is set free. OSError if refused."""
    wanted = {setting.file: setting for setting in settings(limits, layout)}
    free = {setting.file: setting for setting in unlimited(layout)}
    every = {**free, **wanted}.values()
    cgroup.apply(layout, group, [s for s in every if os.path.exists(f"{layout.path(s.controller, group)}/{s.file}")])


def absent(layout: Layout, group: str) -> frozenset[str]:
    """Files of limits that this kernel was built without, by a look at a group made for it."""
    if layout.version("blkio") != 1:
        return frozenset()
    folder = layout.path("blkio", group)
    os.makedirs(folder, exist_ok=True)
    return frozenset(name for name in _FREE[1]["blkio"] if not os.path.exists(f"{folder}/{name}"))


def unlimited(layout: Layout) -> list[Setting]:
    """Every limit's file, with the value that limits nothing."""
    found = []
    for controller, values in _FREE[1].items():
        found += [Setting(controller, *pair) for pair in values.items() if layout.version(controller) == 1]
    for controller, values in _FREE[2].items():
        found += [Setting(controller, *pair) for pair in values.items() if layout.version(controller) == 2]
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
            found.append(Setting("memory", "memory.swappiness", str(60 - 10 + limits.memory_swap_priority)))
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
