"""CPUs are shared out evenly, pins counted, and nobody is moved without need."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.config.hostvalues import CpuLimit
from atoll.domain.errors import BadRequest, HostError
from atoll.drivers.instance.contract import InstanceDriver, MachineId
from atoll.services.instances import cpu_balance
from atoll.services.instances.cpu_balance import CpuBalancer

A, B, C, D = (MachineId("default", name) for name in "abcd")


def count(number: int) -> CpuLimit:
    return CpuLimit(number=number)


def pin(*cpus: int) -> CpuLimit:
    return CpuLimit(pinned=cpus)


def test_counts_go_where_least_is() -> None:
    assert cpu_balance.spread({A: count(1), B: count(1)}, (0, 1), {}) == {A: (0,), B: (1,)}
    assert cpu_balance.spread({A: pin(0), B: count(1), C: count(2)}, (0, 1, 2, 3), {}) == {A: (0,), B: (3,), C: (1, 2)}
    assert cpu_balance.spread({A: count(9)}, (0, 1), {}) == {A: (0, 1)}


def test_a_pin_keeps_to_what_is_there() -> None:
    assert cpu_balance.spread({A: pin(1, 5)}, (0, 1), {}) == {A: (1,)}
    assert cpu_balance.spread({A: pin(5)}, (0, 1), {}) == {A: (0, 1)}


LIMITS = st.lists(
    st.one_of(st.builds(count, st.integers(1, 10)), st.builds(lambda cpu: pin(cpu), st.integers(0, 7))), max_size=12
)


@given(LIMITS, st.integers(1, 8))
def test_any_counts_are_even_and_stay_where_they_are(limits: list[CpuLimit], cpus: int) -> None:
    usable = tuple(range(cpus))
    wanted = {MachineId("p", f"m{number}"): limit for number, limit in enumerate(limits)}
    found = cpu_balance.spread(wanted, usable, {})
    assert set(found) == set(wanted)
    for machine, limit in wanted.items():
        if not limit.pinned:
            assert len(found[machine]) == min(limit.number, cpus)
    counted = [machine for machine, limit in wanted.items() if not limit.pinned]
    if len(counted) == len(wanted):
        load = [sum(cpu in found[machine] for machine in counted) for cpu in usable]
        assert max(load) - min(load) <= 1
    assert cpu_balance.spread(wanted, usable, found) == found


@pytest.mark.parametrize(("cpus", "text"), [((), ""), ((0,), "0"), ((0, 1, 2), "0-2"), ((0, 2, 3, 7), "0,2-3,7")])
def test_the_text_is_the_kernels(cpus: tuple[int, ...], text: str) -> None:
    assert cpu_balance.to_text(cpus) == text


class Pins:
    """A driver that notes what is pinned."""

    def __init__(self) -> None:
        self.done: list[Mapping[MachineId, str]] = []
        self.usable = (0, 1)
        self.error: HostError | None = None
        self.balancer = CpuBalancer(cast(InstanceDriver, SimpleNamespace(pin=self.pin)), lambda: self.usable)

    async def pin(self, cpus: Mapping[MachineId, str]) -> None:
        if self.error:
            raise self.error
        self.done.append(dict(cpus))


@pytest.fixture
def pins() -> Pins:
    return Pins()


async def test_only_who_moves_is_written(pins: Pins) -> None:
    assert pins.balancer.place(A, {"limits.cpu": "1"}) == "0"
    assert pins.balancer.place(B, {"limits.cpu": "1"}) == "1"
    assert pins.balancer.place(C, {}) == ""
    await pins.balancer.settle()
    assert pins.done == []
    assert pins.balancer.place(D, {"limits.cpu": "0-0"}) == "0"
    pins.balancer.forget(B)
    await pins.balancer.settle()
    assert pins.done == [{A: "1"}]


def test_no_more_move_than_have_to() -> None:
    held = {MachineId("p", f"m{number}"): (number % 4, 4 + number % 4) for number in range(40)}
    wanted = dict.fromkeys(held, count(2))
    for machine in list(held)[:8]:
        del held[machine], wanted[machine]
    held.update({A: (0,), B: (0,)})
    wanted.update({A: count(1), B: count(1)})
    found = cpu_balance.spread(wanted, tuple(range(8)), held)
    assert sum(found[machine] != held[machine] for machine in wanted) == 1
    load = cpu_balance.load_of(found, range(8)).values()
    assert max(load) - min(load) <= 1


async def test_a_pin_to_what_is_not_there_is_refused(pins: Pins) -> None:
    with pytest.raises(BadRequest, match="none of the CPUs 7-9"):
        pins.balancer.place(A, {"limits.cpu": "7-9"})
    await pins.balancer.settle()
    assert pins.done == []


async def test_cpus_that_come_and_go_reach_all(pins: Pins) -> None:
    pins.balancer.place(A, {"limits.cpu": "2"})
    assert not await pins.balancer.refresh([A, C])
    pins.usable = (0, 1, 2, 3)
    assert await pins.balancer.refresh([A, C])
    assert pins.done == [{A: "0-1", C: ""}]
    pins.usable = (0, 3)
    await pins.balancer.refresh([A, C])
    assert pins.done[-1] == {A: "0,3", C: ""}


async def test_what_the_kernel_refuses_fails_nobody_else(pins: Pins, caplog: Any) -> None:
    pins.balancer.place(A, {"limits.cpu": "1"})
    pins.balancer.place(B, {"limits.cpu": "0-0"})
    pins.error = HostError("no")
    await pins.balancer.settle()
    assert "could not be balanced" in caplog.text
