"""Profiles: their order, what a change means for who has them."""

from __future__ import annotations

from typing import Any

PROFILES = "/1.0/profiles"


async def test_life(app: Any) -> None:
    await app.do("POST", PROFILES, {"name": "p1", "description": "d", "config": {"limits.cpu": "1"}})
    assert await app.get(PROFILES) == [f"{PROFILES}/default", f"{PROFILES}/p1"]
    assert await app.get(f"{PROFILES}/p1") == {
        "name": "p1",
        "description": "d",
        "config": {"limits.cpu": "1"},
        "devices": {},
        "used_by": [],
    }
    await app.do("PATCH", f"{PROFILES}/p1", {"config": {"user.a": "b"}})
    assert (await app.get(f"{PROFILES}/p1"))["config"] == {"limits.cpu": "1", "user.a": "b"}
    await app.do("POST", f"{PROFILES}/p1", {"name": "p2"})
    await app.do("DELETE", f"{PROFILES}/p2")
    assert await app.get(PROFILES) == [f"{PROFILES}/default"]


async def test_later_profiles_win_and_the_instance_wins_over_all(app: Any) -> None:
    await app.do("POST", PROFILES, {"name": "p1", "config": {"user.x": "1", "user.y": "1", "user.z": "1"}})
    await app.do("POST", PROFILES, {"name": "p2", "config": {"user.y": "2", "user.z": "2"}})
    await app.create("c1", profiles=["default", "p1", "p2"], config={"user.z": "own"})
    found = await app.get("/1.0/instances/c1")
    assert {key: found["expanded_config"][f"user.{key}"] for key in "xyz"} == {"x": "1", "y": "2", "z": "own"}
    assert found["profiles"] == ["default", "p1", "p2"]
    assert (await app.get(f"{PROFILES}/p1"))["used_by"] == ["/1.0/instances/c1"]
    await app.do("PATCH", "/1.0/instances/c1", {"profiles": ["default", "p2", "p1"]})
    assert (await app.get("/1.0/instances/c1"))["expanded_config"]["user.y"] == "1"


async def test_a_change_reaches_running_instances(app: Any) -> None:
    await app.create("c1")
    await app.set_state("c1", "start")
    profile = await app.get(f"{PROFILES}/default")
    await app.do("PUT", f"{PROFILES}/default", {**profile, "config": {"limits.memory": "1GiB"}})
    assert (await app.get("/1.0/instances/c1"))["expanded_config"]["limits.memory"] == "1GiB"
    [machine] = app.daemon.driver._machines.values()
    assert machine.limits.memory_bytes == 1 << 30


async def test_a_change_that_would_break_an_instance_is_refused(app: Any) -> None:
    await app.create("c1")
    status, _ = await app.refused("PUT", f"{PROFILES}/default", {"devices": {}})
    assert status == 400
    assert (await app.get("/1.0/instances/c1"))["expanded_devices"]["root"]["pool"] == "pool"


async def test_what_is_refused(app: Any) -> None:
    await app.do("POST", PROFILES, {"name": "p1"})
    await app.create("c1", profiles=["default", "p1"])
    assert (await app.refused("POST", PROFILES, {"name": "p1"}))[0] in (400, 409)
    assert (await app.refused("DELETE", f"{PROFILES}/p1"))[0] == 400
    assert (await app.refused("DELETE", f"{PROFILES}/default"))[0] in (400, 403, 409)
    assert (await app.refused("POST", f"{PROFILES}/default", {"name": "x"}))[0] in (400, 403, 409)
    assert (await app.refused("PUT", f"{PROFILES}/absent", {}))[0] == 404
    assert (await app.refused("POST", PROFILES, {"name": "p2", "config": {"no.such.key": "1"}}))[0] == 400
    assert (await app.refused("POST", PROFILES, {"name": "p2", "devices": {"d": {"type": "no"}}}))[0] == 400
    assert (await app.refused("POST", PROFILES, {"name": "p2", "devices": {"d": {}}}))[0] == 400
    assert await app.get(PROFILES) == [f"{PROFILES}/default", f"{PROFILES}/p1"]


async def test_etags(app: Any) -> None:
    tag = await app.etag(f"{PROFILES}/default")
    await app.do("PATCH", f"{PROFILES}/default", {"description": "x"}, headers={"If-Match": tag})
    status, _ = await app.refused("PATCH", f"{PROFILES}/default", {"description": "y"}, headers={"If-Match": tag})
    assert status == 412
