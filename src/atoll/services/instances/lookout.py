"""Polls machines for all that wait for something which shows from outside (an address, an open port), in one pass for all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from atoll.domain.errors import AtollError
from atoll.domain.status import InstanceStatus
from atoll.drivers.instance.contract import InstanceDriver, MachineId, MachineState

_QUICKEST, _SLOWEST = 0.01, 0.25
_AGE_SHARE = 0.05
_WORK_SHARE = 10.0
_STOPPED = MachineState(InstanceStatus.STOPPED)


@dataclass(frozen=True, slots=True)
class View:
    """A machine at one moment. `ports` only for whoever asks for them."""

    state: MachineState
    ports: frozenset[int] = frozenset()


@dataclass(eq=False, slots=True)
class _Waiter:
    machine: MachineId
    holds: Callable[[View], bool]
    ports: bool
    seen: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    since: float = field(default_factory=time.monotonic)


class Lookout:
    """Looks while anybody waits: often at first, less often for those that wait long, and never for more than a tenth of the
    time."""

    def __init__(self, driver: InstanceDriver) -> None:
        self._driver = driver
        self._waiters: set[_Waiter] = set()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def until(self, machine: MachineId, holds: Callable[[View], bool], *, ports: bool = False) -> None:
        """Return when `holds` is true of the machine."""
        waiter = _Waiter(machine, holds, ports)
        self._waiters.add(waiter)
        self._news.set()
        if self._task is None:
            self._task = asyncio.create_task(self._look_on(), name="lookout")
        try:
            await waiter.seen
        finally:
            self._waiters.discard(waiter)

    async def _look_on(self) -> None:
        try:
            while self._waiters:
                began = time.monotonic()
                self._news.clear()
                await self._look(tuple(self._waiters))
                now = time.monotonic()
                youngest = max((waiter.since for waiter in self._waiters), default=now)
                pause = min(max((now - youngest) * _AGE_SHARE, _QUICKEST), _SLOWEST)
                await asyncio.sleep((now - began) * _WORK_SHARE)
                await self._newcomer(pause)
        except Exception as error:  # noqa: BLE001 - a defect: those who wait have to hear of it, as there is nobody else to
            for waiter in self._waiters:
                if not waiter.seen.done():
                    waiter.seen.set_exception(error)
        finally:
            self._task = None

    async def _newcomer(self, seconds: float) -> None:
        """Until somebody else waits too, at most that long."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            pass

    async def _look(self, waiters: Iterable[_Waiter]) -> None:
        try:
            states = await self._driver.state(list({waiter.machine for waiter in waiters}))
            listening = await self._ports({waiter.machine for waiter in waiters if waiter.ports})
        except AtollError:
            return  # a machine that ends between two looks; the next one sees what became of it
        for waiter in waiters:
            view = View(states.get(waiter.machine, _STOPPED), listening.get(waiter.machine, frozenset()))
            if not waiter.seen.done() and waiter.holds(view):
                waiter.seen.set_result(None)

    async def _ports(self, machines: set[MachineId]) -> Mapping[MachineId, frozenset[int]]:
        return await self._driver.listening(list(machines)) if machines else {}
