"""Which CPUs each running machine may use.

`limits.cpu` names CPUs (a pin) or says how many (a count). Counts are spread so that every CPU has about as many machines as the
others, pins counted; they are spread anew when a machine starts, stops or changes, and when CPUs come or go. Machines without
the key use all CPUs and weigh on all alike, so they do not count.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from atoll import config as keys
from atoll.config.hostvalues import CpuLimit
from atoll.domain.errors import AtollError, BadRequest
from atoll.drivers.instance.contract import InstanceDriver, MachineId

log = logging.getLogger(__name__)

Cpus = tuple[int, ...]


def spread(wanted: Mapping[MachineId, CpuLimit], usable: Sequence[int], held: Mapping[MachineId, Cpus]) -> dict[MachineId, Cpus]:
    """The CPUs of each machine, ascending. Pure.

    A pin gets those of its CPUs that are usable (all, should none be), a count the least used ones, at most all. Whoever has CPUs
    (`held`) keeps them, but for as few moves as bring the CPUs to within one machine of each other, as far as pins allow.
    """
    result: dict[MachineId, Cpus] = {}
    missing, there = [], set(usable)
    for machine, limit in wanted.items():
        mine = tuple(cpu for cpu in held.get(machine, ()) if cpu in there)
        if limit.pinned:
            result[machine] = _choose(limit, dict.fromkeys(usable, 0), ())
        elif mine and len(mine) == min(limit.number, len(usable)):
            result[machine] = mine
        else:
            missing.append((machine, limit))
    load = load_of(result, usable)
    for machine, limit in sorted(missing, key=lambda each: (-each[1].number, each[0].key)):
        result[machine] = _choose(limit, load, held.get(machine, ()))
        for cpu in result[machine]:
            load[cpu] += 1
    while (move := _best_move(wanted, result, load)) is not None:
        machine, old, new = move
        result[machine] = tuple(sorted({*result[machine], new} - {old}))
        load[old], load[new] = load[old] - 1, load[new] + 1
    return result


def _best_move(
    wanted: Mapping[MachineId, CpuLimit], placed: Mapping[MachineId, Cpus], load: Mapping[int, int]
) -> tuple[MachineId, int, int] | None:
    """(machine, from, to) that makes the fullest CPU less full; None when none helps. Each makes the sum of squares smaller."""
    full = sorted(load, key=lambda cpu: (-load[cpu], cpu))
    for old in full:
        for new in reversed(full):
            if load[old] - load[new] <= 1:
                break
            for machine, cpus in placed.items():
                if old in cpus and new not in cpus and not wanted[machine].pinned:
                    return machine, old, new
    return None


def load_of(placed: Mapping[MachineId, Cpus], usable: Sequence[int]) -> dict[int, int]:
    """By CPU, how many machines have it."""
    load = dict.fromkeys(usable, 0)
    for cpus in placed.values():
        for cpu in cpus:
            if cpu in load:
                load[cpu] += 1
    return load


def _choose(limit: CpuLimit, load: Mapping[int, int], mine: Cpus) -> Cpus:
    """Of the CPUs in `load`, which says how many machines each has, those for one more machine."""
    if limit.pinned:
        return tuple(cpu for cpu in limit.pinned if cpu in load) or tuple(load)
    order = sorted(load, key=lambda cpu: (load[cpu], cpu not in mine, cpu))
    return tuple(sorted(order[: limit.number]))


def to_text(cpus: Sequence[int]) -> str:
    """As the kernel reads them: `0-2,5`."""
    runs: list[list[int]] = []
    for cpu in cpus:
        if runs and cpu == runs[-1][1] + 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in runs)


class CpuBalancer:
    """Knows what every running machine wants, so that a change costs no query, and moves only machines whose CPUs change."""

    def __init__(self, driver: InstanceDriver, look: Callable[[], Cpus]) -> None:
        """`look` reads which CPUs there are to use now."""
        self._driver = driver
        self._look = look
        self._usable = look()
        self._wanted: dict[MachineId, CpuLimit] = {}
        self._held: dict[MachineId, Cpus] = {}
        self._turn = asyncio.Lock()

    def place(self, machine: MachineId, config: Mapping[str, str]) -> str:
        """From now on count a machine with that expanded configuration. Returns the CPUs that whoever starts or changes it sets
        now; empty: all. `settle` moves the others. BadRequest when it is pinned to CPUs of which none is there."""
        limit: CpuLimit | None = keys.INSTANCE.get(config, "limits.cpu")
        if limit is None:
            self.forget(machine)
            return ""
        if limit.pinned and not set(limit.pinned) & set(self._usable):
            raise BadRequest(f"limits.cpu: none of the CPUs {config['limits.cpu']} is there", hint="see `lxc info --resources`")
        mine = self._held.pop(machine, ())
        self._wanted[machine] = limit
        self._held[machine] = _choose(limit, load_of(self._held, self._usable), mine)
        return to_text(self._held[machine])

    def forget(self, machine: MachineId) -> None:
        """It stopped, or its limit was taken away."""
        self._wanted.pop(machine, None)
        self._held.pop(machine, None)

    async def settle(self) -> None:
        """Where the last changes left CPUs with more machines than others have, move some, in one pass of the driver."""
        async with self._turn:
            load = load_of(self._held, self._usable).values()
            if max(load) - min(load) <= 1:
                return
            placed = spread(self._wanted, self._usable, self._held)
            moved = {machine: cpus for machine, cpus in placed.items() if self._held.get(machine) != cpus}
            self._held.update(moved)
            await self._pin({machine: to_text(cpus) for machine, cpus in moved.items()})

    async def refresh(self, running: Iterable[MachineId]) -> bool:
        """Look whether CPUs came or went, and set those of all machines that run if so: the kernel takes a CPU that goes out of
        every set, and puts none in that comes. Returns whether there was a change."""
        usable = self._look()
        if usable == self._usable:
            return False
        self._usable = usable
        self._held = spread(self._wanted, usable, self._held)
        await self._pin({machine: to_text(self._held.get(machine, ())) for machine in running})
        return True

    async def _pin(self, cpus: Mapping[MachineId, str]) -> None:
        if not cpus:
            return
        try:
            await self._driver.pin(cpus)
        except AtollError as error:  # the balance of others is no reason to fail what somebody asked for
            log.warning("CPUs could not be balanced: %s", error)
