"""What instances use, as rates between two answers of the server: the rows of `top`. Pure."""

from __future__ import annotations

from atoll.cli import times
from atoll.cli.output import natural

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Instance = dict[str, Any]

NANOSECONDS = 10**9


class Usage:
    """One instance at one moment. cpu: percent of one CPU; received, sent: bytes a second; the others bytes or numbers.

    Rates are None until the instance has been seen twice in the same life.
    """

    __slots__ = ("cpu", "disk", "memory", "name", "processes", "project", "received", "sent", "status", "swap")

    def __init__(self, instance: Instance) -> None:
        state = instance.get("state") or {}
        memory = state.get("memory") or {}
        self.project: str = instance.get("project") or "default"
        self.name: str = instance["name"]
        self.status: str = str(instance.get("status") or "").upper()
        self.cpu: float | None = None
        self.received: float | None = None
        self.sent: float | None = None
        self.memory: int = memory.get("usage") or 0
        self.swap: int = memory.get("swap_usage") or 0
        self.disk: int = sum(max(0, (disk or {}).get("usage") or 0) for disk in (state.get("disk") or {}).values())
        self.processes: int = max(0, state.get("processes") or 0)


class Meter:
    """Turns successive answers into usage."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], tuple[int, int, int, int]] = {}
        self._moment = 0.0

    def read(self, instances: Iterable[Instance], moment: float) -> list[Usage]:
        """Usage of those that run. `moment`: seconds of a clock that only goes forward."""
        elapsed, self._moment = moment - self._moment, moment
        before, self._last = self._last, {}
        found = []
        for instance in instances:
            state = instance.get("state") or {}
            if not state.get("pid"):
                continue
            usage = Usage(instance)
            key = (usage.project, usage.name)
            counters = _counters(state)
            self._last[key] = counters
            past = before.get(key)
            if past is not None and past[0] == counters[0] and elapsed > 0:
                cpu, received, sent = (max(0, now - then) / elapsed for now, then in zip(counters[1:], past[1:], strict=True))
                usage.cpu, usage.received, usage.sent = cpu * 100 / NANOSECONDS, received, sent
            found.append(usage)
        return found


def _counters(state: Instance) -> tuple[int, int, int, int]:
    """(pid, nanoseconds of CPU, bytes received, bytes sent); of all interfaces but loopback."""
    links = [link for link in (state.get("network") or {}).values() if link and link.get("type") != "loopback"]
    counters = [link.get("counters") or {} for link in links]
    return (
        state["pid"],
        (state.get("cpu") or {}).get("usage") or 0,
        sum(each.get("bytes_received") or 0 for each in counters),
        sum(each.get("bytes_sent") or 0 for each in counters),
    )


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{times.binary_size(int(value), 1)}/s"


def _size(value: int) -> str:
    return times.binary_size(value, 1) if value else "-"


COLUMNS: tuple[tuple[str, Callable[[Usage], str]], ...] = (
    ("NAME", lambda usage: usage.name),
    ("STATE", lambda usage: usage.status),
    ("CPU", lambda usage: "-" if usage.cpu is None else f"{usage.cpu:.1f}%"),
    ("MEMORY", lambda usage: _size(usage.memory)),
    ("SWAP", lambda usage: _size(usage.swap)),
    ("DISK", lambda usage: _size(usage.disk)),
    ("RECEIVED", lambda usage: _rate(usage.received)),
    ("SENT", lambda usage: _rate(usage.sent)),
    ("PROCESSES", lambda usage: str(usage.processes)),
)
ORDERS: dict[str, Callable[[Usage], float]] = {
    "cpu": lambda usage: usage.cpu or 0.0,
    "memory": lambda usage: usage.memory,
    "disk": lambda usage: usage.disk,
    "network": lambda usage: (usage.received or 0.0) + (usage.sent or 0.0),
    "processes": lambda usage: usage.processes,
    "name": lambda usage: 0.0,
}
"""Ways to sort, the greatest first; equals stand by their names."""


def ordered(usages: Iterable[Usage], order: str) -> list[Usage]:
    """Sorted by one of ORDERS."""
    weight = ORDERS[order]
    return sorted(usages, key=lambda usage: (-weight(usage), natural(usage.name), usage.project))


def summary(usages: list[Usage]) -> str:
    """One line about all of them."""
    cpu = sum(usage.cpu or 0.0 for usage in usages)
    memory = sum(usage.memory for usage in usages)
    return f"{len(usages)} running, CPU {cpu:.1f}%, memory {times.binary_size(memory, 1)}"
