"""What monitoring counts of machines: files of control groups and of /proc. Blocking."""

from __future__ import annotations

from collections.abc import Mapping

from atoll.drivers.instance.contract import DiskTraffic, MachineId, Measures, Memory
from atoll.host import cgroup, cgroup_measures, netns


def read_all(layout: cgroup.Layout, looks: Mapping[MachineId, tuple[int, str]]) -> dict[MachineId, Measures]:
    """Of machines, each by (pid of its init, its control group), one after the other; one that ends meanwhile is absent."""
    names: dict[str, str] = {}
    found = {}
    for id, (init, group) in looks.items():
        memory = cgroup_measures.memory(layout, group)
        if memory is None:
            continue
        # A host may have hundreds of loop devices; most were never touched.
        traffic = {disk: counts for disk, counts in cgroup_measures.disk_traffic(layout, group).items() if any(counts.values())}
        names.update(cgroup_measures.disk_names({number: None for number in traffic if number not in names}))
        found[id] = Measures(
            processes=cgroup.processes(layout, group),
            cpu_ns=cgroup_measures.cpu_times(layout, group),
            memory=Memory(**memory),
            disks={names[number]: DiskTraffic(**counts) for number, counts in traffic.items() if number in names},
            nics=netns.counters(init),
        )
    return found
