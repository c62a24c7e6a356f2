"""Figures of machines: files of control groups and of /proc, and what the kernel said of their interfaces. Blocking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from atoll.domain.status import InstanceStatus
from atoll.drivers.instance.contract import MachineId, MachineState, NicState
from atoll.host import cgroup, lxc_command, netns

Found = tuple[lxc_command.Running, netns.Watch | None, bool]


@dataclass(frozen=True, slots=True)
class Look:
    """Where to look for one machine's figures."""

    status: InstanceStatus
    init_pid: int
    group: str
    links: netns.Watch | None


def read_all(layout: cgroup.Layout, looks: Mapping[MachineId, Look]) -> dict[MachineId, MachineState]:
    """The figures of all machines, one after the other."""
    return {id: _read(layout, look) for id, look in looks.items()}


def _read(layout: cgroup.Layout, look: Look) -> MachineState:
    figures = cgroup.figures(layout, look.group)
    return MachineState(
        status=look.status,
        pid=look.init_pid,
        processes=figures.processes,
        cpu_ns=figures.cpu_ns,
        memory=figures.memory,
        memory_peak=figures.memory_peak,
        swap=figures.swap,
        swap_peak=figures.swap_peak,
        nics=_nics(look),
    )


def _nics(look: Look) -> list[NicState]:
    if look.links is None:
        return []
    counters = netns.counters(look.init_pid)
    return [
        NicState(
            name=link.name,
            host_name=netns.host_name(link.peer) if link.medium != "loopback" else "",
            hwaddr=link.hwaddr,
            mtu=link.mtu,
            up=link.up,
            kind=link.medium,
            addresses=tuple(each.wire() for each in link.addresses),
            counters=counters.get(link.name, {}),
        )
        for link in look.links.links().values()
    ]
