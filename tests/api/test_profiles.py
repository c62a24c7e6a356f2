"""Profiles: their order, what a change means for who has them."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.db import profiles as rows
from atoll.domain.errors import HostError
from atoll.drivers.instance.contract import MachineId, MountSpec
from atoll.services.instances import profile_change
from atoll.services.instances.device_repair import DeviceRepair

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


def failures(ended: tuple[int, dict[str, Any]]) -> tuple[int, list[str]]:
    """Status and lines of the answer to a change that some instances could not follow."""
    status, content = ended
    first, *lines = content["error"].splitlines()
    assert first == "The following instances failed to update (profile change still saved):"
    return status, lines


async def test_an_instance_that_cannot_follow_is_named_and_stays_as_it_is(app: Any) -> None:
    own, other = ({"type": "disk", "pool": "pool", "path": "/", "size": size} for size in ("1GiB", "2GiB"))
    await app.do("POST", PROFILES, {"name": "p1"})
    await app.create("c1", profiles=["p1"], devices={"own": own})
    await app.create("c2", profiles=["p1"], devices={"rootfs": own})
    await app.create("c3", profiles=["default", "p1"])
    for name in ("c1", "c2"):
        await app.set_state(name, "start")
    changed = {"config": {"limits.memory": "1GiB"}, "devices": {"rootfs": other}}
    status, lines = failures(await app.call("PUT", f"{PROFILES}/p1", changed))
    assert status == 500
    assert lines == [
        " - Project: default, Instance: c1: More than one root disk device: own, rootfs",
        " - Project: default, Instance: c3: More than one root disk device: root, rootfs",
    ]
    assert (await app.get(f"{PROFILES}/p1"))["devices"] == {"rootfs": other}
    memory = {machine.launch.id.name: machine.limits.memory_bytes for machine in app.daemon.driver._machines.values()}
    assert memory == {"c1": None, "c2": 1 << 30}
    assert {each["name"]: each["status"] for each in await app.get("/1.0/instances?recursion=1")} == {
        "c1": "Running",
        "c2": "Running",
        "c3": "Stopped",
    }
    for name, action in (("c3", "start"), ("c1", "restart")):
        assert "More than one root disk" in (await app.refused("PUT", f"/1.0/instances/{name}/state", {"action": action}))[1]
    assert (await app.get("/1.0/instances/c1"))["status"] == "Running"
    await app.do("PUT", f"{PROFILES}/p1", {})
    await app.set_state("c3", "start")


async def test_one_with_two_root_disks_can_be_deleted(app: Any) -> None:
    await app.do("POST", "/1.0/storage-pools", {"name": "other", "driver": "dir"})
    await app.do("POST", PROFILES, {"name": "p1"})
    await app.create("c1", profiles=["default", "p1"])
    second = {"second": {"type": "disk", "pool": "other", "path": "/"}}
    failures(await app.call("PUT", f"{PROFILES}/p1", {"devices": second}))
    await app.do("POST", "/1.0/instances/c1/snapshots", {"name": "s1"})
    await app.do("DELETE", "/1.0/instances/c1")
    assert await app.get("/1.0/storage-pools/other/volumes") == await app.get("/1.0/storage-pools/pool/volumes") == []


async def test_a_device_that_cannot_be_plugged_keeps_others_from_nothing(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("c1", "c2"):
        await app.create(name)
        await app.set_state(name, "start")
    real = app.daemon.driver.attach_mount

    async def attach(machine: MachineId, mount: MountSpec) -> None:
        if machine.name == "c1":
            raise HostError("no room for it")
        await real(machine, mount)

    monkeypatch.setattr(app.daemon.driver, "attach_mount", attach)
    profile = await app.get(f"{PROFILES}/default")
    tmp = {"type": "disk", "source": str(app.paths.root), "path": "/srv"}
    answer = await app.call("PUT", f"{PROFILES}/default", {**profile, "devices": {**profile["devices"], "d": tmp}})
    assert failures(answer)[1] == [" - Project: default, Instance: c1: no room for it"]
    assert "d" in (await app.get("/1.0/instances/c1"))["expanded_devices"]
    mounts = {machine.launch.id.name: len(machine.mounts) for machine in app.daemon.driver._machines.values()}
    assert mounts["c2"] == mounts["c1"] + 1
    await app.do("PUT", f"{PROFILES}/default", profile)
    await app.set_state("c1", "restart", force=True)


async def test_what_a_kill_kept_from_running_instances_is_brought_by_the_next_start(app: Any) -> None:
    for name in ("c1", "c2"):
        await app.create(name)
    await app.set_state("c1", "start")
    devices = {
        **(await app.get(f"{PROFILES}/default"))["devices"],
        "eth0": {"type": "nic", "nictype": "p2p"},
        "d": {"type": "disk", "source": str(app.paths.root), "path": "/srv"},
    }
    async with app.daemon.global_db.write() as tx:  # as a kill leaves it that comes right after the profile was written
        profile = await rows.find(tx, "default", "default")
        await rows.update(tx, profile.id, "", {"limits.memory": "1GiB"}, devices)
    core, parts = app.daemon.instances.core, app.daemon.instances.devices
    [machine] = app.daemon.driver._machines.values()
    before = set(machine.mounts)
    assert list(machine.nics) == []
    found = []
    for _ in range(2):  # and what is there is left alone
        await DeviceRepair(core, parts).run([await core.load("default", "c1")])
        found.append(([each.device for each in machine.nics], set(machine.mounts) - before))
    volatile = (await app.get("/1.0/instances/c1"))["config"].get("volatile.eth0.host_name")
    names = [each.host_name for each in machine.nics]
    await app.set_state("c1", "stop", force=True)
    assert (found, [volatile]) == ([(["eth0"], {"srv"})] * 2, names)


async def test_what_is_refused(app: Any) -> None:
    await app.do("POST", PROFILES, {"name": "p1"})
    await app.create("c1", profiles=["default", "p1"])
    assert (await app.refused("POST", PROFILES, {"name": "p1"}))[0] in (400, 409)
    assert (await app.refused("DELETE", f"{PROFILES}/p1"))[0] == 400
    assert await app.refused("DELETE", f"{PROFILES}/default") == (403, 'The "default" profile cannot be deleted')
    assert await app.refused("POST", f"{PROFILES}/default", {"name": "x"}) == (403, 'The "default" profile cannot be renamed')
    assert (await app.refused("PUT", f"{PROFILES}/p1", None))[0] == 400, "a body that got lost empties nothing"
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


async def test_who_is_busy_keeps_nobody_waiting(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others get there, and it is named; once it is free it has the profile as well."""
    monkeypatch.setattr(profile_change, "PATIENCE", 0.05)
    for name in ("busy", "free"):
        await app.create(name)
        await app.set_state(name, "start")
    profile = {**await app.get(f"{PROFILES}/default"), "config": {"limits.memory": "1GiB"}}
    async with app.daemon.instances.core.hold(MachineId("default", "busy")):
        status, content = await app.call("PUT", f"{PROFILES}/default", profile)
    assert (status, "Instance: busy: Instance is busy" in content["error"]) == (500, True)
    assert "Instance: free" not in content["error"]
    machines = app.daemon.driver._machines
    assert {id.name: machine.limits.memory_bytes for id, machine in machines.items()} == {"busy": None, "free": 1 << 30}
    assert (await app.get("/1.0/instances/busy"))["expanded_config"]["limits.memory"] == "1GiB"
    await app.do("PUT", f"{PROFILES}/default", profile)
