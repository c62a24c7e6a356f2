"""What stopping means in each state, and that what a machine's start had made is put away whatever goes wrong."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from atoll.domain.caller import DAEMON
from atoll.domain.entities import Instance
from atoll.domain.errors import AtollError, BadRequest, Conflict, DeadlineExceeded, HostError, NotFound
from atoll.domain.status import InstanceStatus, StateAction
from atoll.drivers.instance.contract import InstanceDriver, MachineEvent, MachineEventKind, MachineId
from atoll.services.instances import state
from atoll.services.instances.core import InstanceCore, Loaded
from atoll.services.instances.cpu_balance import CpuBalancer
from atoll.services.instances.devices import DeviceService
from atoll.services.instances.expand import Expanded
from atoll.services.instances.state import InstanceRunner
from atoll.services.operations import OperationRegistry

ID = MachineId("default", "c1")
RUNNING, FROZEN, STOPPED = InstanceStatus.RUNNING, InstanceStatus.FROZEN, InstanceStatus.STOPPED


class World:
    """A runner whose surroundings write down what is asked of them."""

    def __init__(self, *, ephemeral: bool = False) -> None:
        self.done: list[str] = []
        self.status = RUNNING
        self.stop_error: AtollError | None = None
        self.unmount_error: AtollError | None = None
        self.volatile: dict[str, str] = {}
        self.is_there = True
        record = Instance(1, "default", "c1", "container", "x86_64", ephemeral, False, "", "", "", "", "none")
        self.loaded = Loaded(record, Expanded({}, {"root": {"type": "disk", "path": "/", "pool": "p"}}))
        core = SimpleNamespace(
            driver=SimpleNamespace(
                status=lambda _: self.status, stop=self.stop, thaw=self.note("thaw"), freeze=self.note("freeze")
            ),
            storage=SimpleNamespace(driver=lambda _: SimpleNamespace(unmount=self.unmount)),
            hold=self.hold,
            load=self.load,
            status=lambda _: self.status,
            require_running=lambda _: None,
            patch_volatile=self.patch_volatile,
            tell=lambda action, *_, **__: self.done.append(action),
        )
        devices = SimpleNamespace(release=self.release)
        self.runner = InstanceRunner(
            cast(InstanceCore, core),
            cast(DeviceService, devices),
            cast(OperationRegistry, None),
            self.note("deleted"),
            CpuBalancer(cast(InstanceDriver, core.driver), lambda: (0, 1)),
        )

    def note(self, what: str) -> Any:
        async def step(*_: object) -> None:
            self.done.append(what)

        return step

    @contextlib.asynccontextmanager
    async def hold(self, *_: object) -> AsyncIterator[None]:
        yield

    async def load(self, *_: object) -> Loaded:
        if not self.is_there:
            raise NotFound("Instance not found")
        return self.loaded

    async def stop(self, _: object, *, timeout: float | None) -> None:
        self.done.append(f"stop {timeout}")
        if not isinstance(self.stop_error, DeadlineExceeded):
            self.status = STOPPED
            self.tell(MachineEventKind.STOPPED)
        if self.stop_error is not None:
            raise self.stop_error

    def tell(self, kind: MachineEventKind) -> None:
        self.runner.on_event(MachineEvent(ID, kind))

    async def release(self, _: object) -> dict[str, str]:
        self.done.append("released")
        return {"volatile.eth0.host_name": ""}

    async def unmount(self, _: object) -> None:
        if self.unmount_error is not None:
            raise self.unmount_error
        self.done.append("unmounted")

    async def patch_volatile(self, _: object, changes: dict[str, str]) -> None:
        self.volatile.update(changes)

    async def act(self, action: StateAction, *, force: bool = False) -> list[str]:
        try:
            await self.runner.act(ID, action, timeout=5, force=force, caller=DAEMON)
        finally:
            await self.runner.settle()
        return self.done


async def test_a_stop_has_two_halves() -> None:
    world = World()
    assert await world.act(StateAction.STOP) == ["stop 5", "released", "unmounted", "instance-stopped"]
    assert world.volatile == {"volatile.eth0.host_name": "", state.POWER: "STOPPED"}


async def test_by_force_and_ephemeral() -> None:
    world = World(ephemeral=True)
    world.status = FROZEN
    assert await world.act(StateAction.STOP, force=True) == [
        "stop None", "released", "unmounted", "deleted", "instance-stopped",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "action", "fault"),
    [
        (STOPPED, StateAction.STOP, "already stopped"),
        (FROZEN, StateAction.STOP, "frozen"),
        (STOPPED, StateAction.RESTART, "already stopped"),
        (RUNNING, StateAction.START, "already running"),
        (RUNNING, StateAction.UNFREEZE, "isn't frozen"),
    ],
)
async def test_what_makes_no_sense_is_refused_and_does_nothing(status: InstanceStatus, action: StateAction, fault: str) -> None:
    world = World()
    world.status = status
    with pytest.raises(BadRequest, match=fault):
        await world.act(action)
    assert world.done == []


async def test_a_start_of_a_frozen_one_thaws_it_and_none_begins_at_the_end() -> None:
    world = World()
    world.status = FROZEN
    assert await world.act(StateAction.START) == ["thaw", "instance-started"]
    world.runner.shutting_down = True
    with pytest.raises(Conflict):
        await world.act(StateAction.START)


async def test_a_guest_that_does_not_stop_in_time_goes_on() -> None:
    world = World()
    world.stop_error = DeadlineExceeded("late")
    with pytest.raises(DeadlineExceeded):
        await world.act(StateAction.STOP)
    assert (world.done, world.volatile) == (["stop 5"], {})


async def test_a_stop_that_fails_after_the_machine_ended_puts_away_all_the_same() -> None:
    world = World()
    world.stop_error = HostError("lost")
    with pytest.raises(HostError):
        await world.act(StateAction.STOP)
    assert world.done == ["stop 5", "released", "unmounted", "instance-shutdown"]
    assert world.volatile[state.POWER] == "STOPPED"


async def test_a_mount_that_stays_keeps_nothing_else() -> None:
    world = World()
    world.unmount_error = HostError("busy")
    assert await world.act(StateAction.STOP) == ["stop 5", "released", "instance-stopped"]
    assert world.volatile[state.POWER] == "STOPPED"


@pytest.mark.parametrize(("shutting_down", "power"), [(False, "STOPPED"), (True, None)])
async def test_a_guest_that_powers_itself_off(shutting_down: bool, power: str | None) -> None:
    world = World(ephemeral=True)
    world.status, world.runner.shutting_down = STOPPED, shutting_down
    world.tell(MachineEventKind.STOPPED)
    await world.runner.settle()
    assert world.done == ["released", "unmounted", "instance-shutdown", *([] if shutting_down else ["deleted"])]
    assert world.volatile.get(state.POWER) == power


async def test_an_event_that_is_out_of_date_does_nothing() -> None:
    world = World()
    world.tell(MachineEventKind.STOPPED)  # it runs again
    world.tell(MachineEventKind.FROZEN)
    await world.runner.settle()
    world.status, world.is_there = STOPPED, False
    world.tell(MachineEventKind.STOPPED)
    world.tell(MachineEventKind.REBOOTED)
    await world.runner.settle()
    assert world.done == []
