"""Configuration of instances: what may be set, what it does while they run, and that a refusal changes nothing."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from atoll.domain.errors import HostError
from atoll.drivers.instance.contract import DiskLimit, Launch, Limits, MachineId
from atoll.services.instances import disk_limits

C1 = "/1.0/instances/c1"
DEFAULT = "/1.0/profiles/default"


def machine(name: str) -> MachineId:
    return MachineId("default", name)


async def config(app: Any, name: str = "c1") -> dict[str, str]:
    found: dict[str, str] = (await app.get(f"/1.0/instances/{name}"))["config"]
    return found


async def idmap(app: Any, name: str) -> Any:
    return app.daemon.driver._machines[machine(name)].launch.idmap


# --- what may be set -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        {"no.such.key": "1"},
        {"limits.memory": "2ZZ"},
        {"limits.cpu": "0"},
        {"raw.lxc": "refused"},
        {"raw.idmap": "both 1 1\nboth 1 2"},
        {"security.syscalls.allow": "read", "security.syscalls.deny": "write"},
        {"linux.kernel_modules": "a;b"},
    ],
)
async def test_a_refusal_changes_nothing(app: Any, bad: dict[str, str]) -> None:
    await app.create("c1")
    before = await app.get(C1)
    assert (await app.refused("PATCH", C1, {"config": {"user.a": "b", **bad}}))[0] == 400
    assert await app.get(C1) == before
    assert (await app.refused("POST", "/1.0/instances", {"name": "c2", "source": {"type": "none"}, "config": bad}))[0] == 400
    profile = await app.get(DEFAULT)
    if "raw.idmap" not in bad:
        assert (await app.refused("PATCH", DEFAULT, {"config": bad}))[0] == 400
        assert await app.get(DEFAULT) == profile


async def test_only_unprivileged_instances(app: Any) -> None:
    await app.create("c1")
    core = app.daemon.instances.core
    core.facts = dataclasses.replace(core.facts, unprivileged_only=True)
    for bad in (
        {"security.privileged": "true"},
        {"raw.idmap": "both 0 1000"},
        {"raw.lxc": "lxc.idmap="},
        {"raw.lxc": "lxc.include="},
    ):
        for path in (C1, DEFAULT):
            assert (await app.refused("PATCH", path, {"config": bad}))[0] == 400
    await app.do("PATCH", C1, {"config": {"security.privileged": "false", "raw.lxc": "lxc.tty.max = 1"}})


async def test_what_a_host_cannot_give_is_said_before_a_restart_stops_it(app: Any) -> None:
    await app.create("c1")
    await app.set_state("c1", "start")
    await app.do("PATCH", C1, {"config": {"security.syscalls.intercept.mknod": "true"}})
    _, text = await app.refused("PUT", f"{C1}/state", {"action": "restart", "force": True})
    assert "security.syscalls.intercept.mknod" in text
    assert (await app.get(C1))["status"] == "Running"


# --- ids -------------------------------------------------------------------------------------------------------------------


async def test_isolated_ids_are_kept_and_shared_with_nobody(app: Any) -> None:
    isolated = {"security.idmap.isolated": "true"}
    for name in ("c1", "c2", "c3"):
        await app.create(name, config=isolated)
    bases = [(await config(app, name))["volatile.idmap.base"] for name in ("c1", "c2", "c3")]
    assert len(set(bases)) == 3
    for name in ("c3", "c1"):
        await app.set_state(name, "start")
    await app.set_state("c3", "stop", force=True)
    await app.set_state("c1", "restart", force=True)
    await app.set_state("c3", "start")
    assert [str((await idmap(app, name)).root) for name in ("c1", "c3")] == [bases[0], bases[2]]
    found = await config(app, "c3")
    assert found["volatile.idmap.current"] == found["volatile.idmap.next"]
    assert found["volatile.last_state.idmap"] == "[]"


async def test_a_profile_decides_about_ids_too(app: Any) -> None:
    for name in ("c1", "c2"):
        await app.create(name)
    await app.set_state("c1", "start")
    assert (await config(app))["volatile.idmap.base"] == "0"
    before = (await config(app))["volatile.idmap.current"]
    await app.do("PATCH", DEFAULT, {"config": {"security.idmap.isolated": "true"}})
    one, two = await config(app, "c1"), await config(app, "c2")
    assert "0" != one["volatile.idmap.base"] != two["volatile.idmap.base"] != "0"
    assert one["volatile.idmap.current"] == before != one["volatile.idmap.next"]
    await app.set_state("c1", "restart", force=True)
    assert str((await idmap(app, "c1")).root) == one["volatile.idmap.base"]


async def test_no_ids_are_left(app: Any) -> None:
    body = {
        "name": "c1",
        "source": {"type": "none"},
        "config": {"security.idmap.isolated": "true", "security.idmap.size": "4000000000"},
    }
    _, text = await app.refused("POST", "/1.0/instances", body)
    assert "host ids are left" in text
    assert await app.get("/1.0/instances") == []


# --- live ------------------------------------------------------------------------------------------------------------------


async def test_cpus_are_balanced_over_machines(app: Any) -> None:
    driver, balancer = app.daemon.driver, app.daemon.instances.runner.balancer
    balancer._usable = (0, 1)
    for name in ("c1", "c2"):
        await app.create(name, config={"limits.cpu": "1"})
        await app.set_state(name, "start")
    assert {driver.limits(machine(name)).cpu_set for name in ("c1", "c2")} == {"0", "1"}
    await app.do("PATCH", C1, {"config": {"limits.cpu": "1-1"}})
    assert (driver.limits(machine("c1")).cpu_set, driver.limits(machine("c2")).cpu_set) == ("1", "0")
    await app.do("PATCH", C1, {"config": {"limits.cpu": ""}})
    assert driver.limits(machine("c1")).cpu_set == ""
    await app.set_state("c2", "stop", force=True)
    assert balancer._wanted == {}
    _, text = await app.refused("PATCH", C1, {"config": {"limits.cpu": "7-9"}})
    assert "none of the CPUs 7-9" in text
    assert "limits.cpu" not in await config(app)


async def test_a_limit_that_is_taken_away_has_its_default(app: Any) -> None:
    await app.do("PATCH", DEFAULT, {"config": {"limits.memory": "1GiB", "limits.processes": "100"}})
    await app.create("c1", config={"limits.memory": "2GiB"})
    await app.set_state("c1", "start")
    limits = app.daemon.driver.limits
    assert limits(machine("c1")).memory_bytes == 2 << 30
    await app.do("PATCH", C1, {"config": {"limits.memory": ""}})
    assert limits(machine("c1")).memory_bytes == 1 << 30
    await app.do("PATCH", DEFAULT, {"config": {"limits.memory": "", "limits.processes": ""}})
    assert limits(machine("c1")) == Limits()


@pytest.fixture
def refusing(app: Any, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of machines whose limits cannot be set to 13 processes."""
    names: set[str] = set()
    real = app.daemon.driver.set_limits

    async def set_limits(id: MachineId, limits: Limits) -> None:
        if id.name in names and limits.processes == 13:
            raise HostError("the kernel does not want to")
        await real(id, limits)

    monkeypatch.setattr(app.daemon.driver, "set_limits", set_limits)
    return names


async def test_one_that_cannot_follow_its_profile_keeps_no_other_back(app: Any, refusing: set[str]) -> None:
    for name in ("c1", "c2", "c3"):
        await app.create(name)
        await app.set_state(name, "start")
    await app.do("PATCH", DEFAULT, {"config": {"limits.processes": "7"}})
    refusing.add("c2")
    status, content = await app.call("PATCH", DEFAULT, {"config": {"limits.processes": "13"}})
    assert (status, [name for name in ("c1", "c2", "c3") if name in content["error"]]) == (500, ["c2"])
    assert (await app.get(DEFAULT))["config"] == {"limits.processes": "13"}
    assert [app.daemon.driver.limits(machine(name)).processes for name in ("c1", "c2", "c3")] == [13, 7, 13]


async def test_a_profile_is_not_changed_under_what_is_being_done(app: Any) -> None:
    """The machines' records are read once their locks are held: not as they were when somebody else was at work."""
    await app.create("c1")
    await app.set_state("c1", "start")
    async with app.daemon.instances.core.hold(machine("c1")):
        waiting = asyncio.ensure_future(app.do("PATCH", DEFAULT, {"config": {"limits.processes": "5"}}))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        core = app.daemon.instances.core
        record = (await core.load("default", "c1")).record
        await core.patch_volatile(record, {"limits.processes": "9"})
        await app.daemon.driver.set_limits(machine("c1"), Limits(processes=9))
    await waiting
    assert app.daemon.driver.limits(machine("c1")).processes == 9


async def test_limits_of_disks_are_live(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_limits.blockdev, "disk_of", lambda _: "8:0")
    root = (await app.get(DEFAULT))["devices"]["root"]
    await app.create("c1", devices={"root": {**root, "limits.read": "1MB"}})
    await app.set_state("c1", "start")
    assert app.daemon.driver.limits(machine("c1")).disks == {"8:0": DiskLimit(read_bytes=1_000_000)}
    await app.do("PATCH", C1, {"devices": {"root": {**root, "limits.write": "9iops"}}})
    assert app.daemon.driver.limits(machine("c1")).disks == {"8:0": DiskLimit(write_requests=9)}
    await app.do("PATCH", C1, {"devices": {"root": root}})
    assert app.daemon.driver.limits(machine("c1")).disks == {}


# --- boot ------------------------------------------------------------------------------------------------------------------


async def test_the_order_of_autostart(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    for name, own in {
        "low": {"boot.autostart": "true"},
        "later": {"boot.autostart": "true", "boot.autostart.priority": "5", "boot.autostart.delay": "3"},
        "first": {"boot.autostart": "true", "boot.autostart.priority": "5"},
        "never": {"boot.autostart": "false", "volatile.last_state.power": "RUNNING"},
        "again": {},
    }.items():
        await app.create(name, config=own)
    core, lifecycle = app.daemon.instances.core, app.daemon.instances.lifecycle
    await core.patch_volatile((await core.load("default", "again")).record, {"volatile.last_state.power": "RUNNING"})
    real = app.daemon.driver.start

    async def start(launch: Launch) -> None:
        done.append(launch.id.name)
        await real(launch)

    real_sleep = asyncio.sleep

    async def sleep(seconds: float) -> None:
        if seconds != 3:  # somebody else's
            return await real_sleep(seconds)
        done.append("3 s")
        return None

    monkeypatch.setattr(app.daemon.driver, "start", start)
    monkeypatch.setattr("atoll.services.instances.lifecycle.asyncio.sleep", sleep)
    await lifecycle.autostart()
    monkeypatch.undo()
    assert done[:3] == ["first", "later", "3 s"]
    assert sorted(done[3:]) == ["again", "low"]


async def test_limits_are_given_again_to_what_a_new_daemon_finds_running(app: Any, until: Any) -> None:
    await app.create("c1", config={"limits.processes": "7"})
    await app.set_state("c1", "start")
    await app.daemon.driver.set_limits(machine("c1"), Limits())  # as after a reboot while no daemon looked
    await app.restart()
    await until(lambda: app.daemon.driver.limits(machine("c1")).processes == 7)


async def test_a_daemon_is_ready_when_what_should_run_does(app: Any, until: Any) -> None:
    await app.create("c1", config={"boot.autostart": "true"})
    await app.restart()
    await until(lambda: app.daemon.ready)
    assert (await app.get(C1))["status"] == "Running"


async def test_the_order_of_stopping(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, float | None]] = []
    for name, own in {"last": {}, "first": {"boot.stop.priority": "9", "boot.host_shutdown_timeout": "7"}}.items():
        await app.create(name, config=own)
        await app.set_state(name, "start")
    real = app.daemon.driver.stop

    async def stop(id: MachineId, *, timeout: float | None) -> None:
        done.append((id.name, timeout))
        await real(id, timeout=timeout)

    monkeypatch.setattr(app.daemon.driver, "stop", stop)
    await app.daemon.instances.lifecycle.stop_all(force=False)
    assert done == [("first", 7), ("last", 30)]
    assert (await config(app, "last"))["volatile.last_state.power"] == "RUNNING"
