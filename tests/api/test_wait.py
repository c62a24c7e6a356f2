"""Waiting until an instance is ready, on simulated machines."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from atoll.drivers.instance.contract import MachineId
from atoll.services.instances import lookout

WAIT = "/1.0/instances/c1/wait"
C1 = MachineId("default", "c1")


@pytest.fixture
async def stopped(app: Any) -> Any:
    await app.create("c1", devices={"eth0": {"type": "nic", "nictype": "p2p"}})
    return app


@pytest.fixture
async def running(stopped: Any) -> Any:
    await stopped.set_state("c1", "start")
    return stopped


async def begun(app: Any, *conditions: str, timeout: float = 30) -> dict[str, Any]:
    status, content = await app.call("POST", WAIT, {"for": conditions, "timeout": timeout})
    assert (status, content["metadata"]["class"]) == (202, "task")
    assert content["metadata"]["metadata"] == {"conditions": dict.fromkeys(conditions, False)}
    return content


async def holds(app: Any, *conditions: str) -> None:
    ended = await app.ended(await begun(app, *conditions))
    assert (ended["status"], ended["metadata"]) == ("Success", {"conditions": dict.fromkeys(conditions, True)})


async def test_what_holds_already(running: Any) -> None:
    running.daemon.driver.give_address(C1, "inet", "10.0.0.2")
    running.daemon.driver.listen(C1, 80)
    await holds(running, "running", "ipv4", "tcp=80", "agent", "exec=sh -c 'exit 0'")


async def test_what_comes_to_hold(running: Any, until: Any) -> None:
    content = await begun(running, "ipv6", "tcp=80", "stopped")
    driver = running.daemon.driver
    driver.give_address(C1, "inet", "10.0.0.2")
    driver.listen(C1, 8080)

    async def holding(*names: str) -> bool:
        found: dict[str, bool] = (await running.get(content["operation"]))["metadata"]["conditions"]
        return found == {name: name in names for name in ("ipv6", "tcp=80", "stopped")}

    await asyncio.sleep(0.1)
    assert await holding()
    driver.give_address(C1, "inet6", "fd00::2")
    await until(lambda: holding("ipv6"))
    driver.listen(C1, 80)
    await until(lambda: holding("ipv6", "tcp=80"))
    await running.set_state("c1", "stop", force=True)
    assert (await running.ended(content))["status"] == "Success"


async def test_an_instance_that_is_started_later(stopped: Any) -> None:
    content = await begun(stopped, "running", "agent")
    await stopped.set_state("c1", "start")
    assert (await stopped.ended(content))["status"] == "Success"


async def test_the_time_runs_out(running: Any) -> None:
    for seconds in (0.3, 3, 30):  # the more, the slower the machine is to see what holds
        ended = await running.ended(await begun(running, "running", "ipv4", "exec=false", timeout=seconds))
        if ended["metadata"]["conditions"]["running"]:
            break
    assert (ended["status"], ended["err"]) == ("Failure", "Timed out waiting for ipv4, exec=false")
    assert ended["metadata"]["conditions"] == {"running": True, "ipv4": False, "exec=false": False}


async def test_what_will_never_hold(running: Any) -> None:
    ended = await running.ended(await begun(running, "cloud-init", "ipv4"))
    assert (ended["status"], ended["err"]) == ("Failure", "There is no cloud-init in the instance")


async def test_a_wait_is_cancelled_and_ends_its_command(running: Any, until: Any) -> None:
    content = await begun(running, "exec=sleep 1000", "ipv4")

    async def processes(count: int) -> bool:
        return bool((await running.daemon.driver.state([C1]))[C1].processes == count)

    await until(lambda: processes(2))
    await running.call("DELETE", content["operation"])
    assert (await running.ended(content))["status"] == "Cancelled"
    await until(lambda: processes(1))


async def test_an_instance_that_goes(stopped: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.services.instances.wait._PRESENCE_SECONDS", 0.05)
    content = await begun(stopped, "running")
    await stopped.do("DELETE", "/1.0/instances/c1")
    ended = await stopped.ended(content)
    assert (ended["status"], ended["err"]) == ("Failure", "Instance not found")


async def test_many_waiters_cost_one_look(running: Any, monkeypatch: pytest.MonkeyPatch, until: Any) -> None:
    driver = running.daemon.driver
    looks: list[int] = []
    real = driver.state

    async def state(machines: Any) -> Any:
        looks.append(len(machines))
        return await real(machines)

    monkeypatch.setattr(driver, "state", state)
    contents = [await begun(running, "ipv4") for _ in range(100)]
    looks.clear()
    begun_at = time.monotonic()
    await until(lambda: len(looks) >= 10)
    assert time.monotonic() - begun_at >= 8 * lookout._QUICKEST and set(looks) == {1}
    driver.give_address(C1, "inet", "10.0.0.2")
    ended = await asyncio.gather(*(running.ended(content) for content in contents))
    assert {each["status"] for each in ended} == {"Success"}
    await until(lambda: not [task for task in asyncio.all_tasks() if task.get_name() == "lookout"])


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "at least one"),
    ({"for": []}, "at least one"),
    ({"for": [""]}, "unknown condition"),
    ({"for": ["ready"]}, "there are running, stopped"),
    ({"for": ["ipv4=1"]}, "no value"),
    ({"for": ["ipv4="]}, "no value"),
    ({"for": ["tcp"]}, "a value"),
    ({"for": ["tcp=0"]}, "not a TCP port"),
    ({"for": ["tcp=65536"]}, "not a TCP port"),
    ({"for": ["tcp=²"]}, "not a TCP port"),
    ({"for": ["exec= "]}, "may not be empty"),
    ({"for": ["exec=a '"]}, "cannot be understood"),
    ({"for": ["exec=a\0b"]}, "NUL"),
    ({"for": ["ipv4"], "timeout": -1}, "timeout"),
]


async def test_what_is_refused(app: Any) -> None:
    await app.create("c1")
    for body, message in REFUSED:
        status, error = await app.refused("POST", WAIT, body)
        assert status == 400 and message in error, (body, error)
    assert "running" not in await app.get("/1.0/operations")
    assert (await app.refused("POST", "/1.0/instances/c2/wait", {"for": ["ipv4"]}))[0] == 404


async def test_a_look_that_breaks_is_told(running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(machines: Any) -> Any:
        raise OSError("a defect")

    monkeypatch.setattr(running.daemon.driver, "state", broken)
    ended = await running.ended(await begun(running, "ipv4"))
    assert (ended["status"], ended["err"]) == ("Failure", "OSError: a defect")
    monkeypatch.undo()
    await holds(running, "running")
