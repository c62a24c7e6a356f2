"""Disks of instances: what is accepted, and who may have a volume beside whom."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from atoll.host import mount
from atoll.services.instances.device_repair import DeviceRepair

from .conftest import POOL, App

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts")

ONE = "/1.0/instances/one"
VOLUMES = f"/1.0/storage-pools/{POOL}/volumes/custom"


def volume(name: str) -> dict[str, Any]:
    return {"type": "disk", "pool": POOL, "source": name, "path": f"/{name}"}


@pytest.fixture
async def one(app: App) -> AsyncIterator[App]:
    """A running instance; what runs at the end is stopped, so that nothing of it stays mounted."""
    await app.create("one")
    await app.set_state("one", "start")
    yield app
    for each in await app.get("/1.0/instances?recursion=1"):
        if each["status"] == "Running":
            await app.set_state(each["name"], "stop", force=True)


async def make_volume(app: App, name: str, **config: str) -> None:
    """With a folder, which the driver `sim` does without."""
    await app.do("POST", VOLUMES, {"name": name, "config": config})
    (app.paths.pools / f"{POOL}/custom/default_{name}").mkdir(parents=True)


def is_pinned(app: App, name: str) -> bool:
    """Whether the source of one of its disks is mounted on the host."""
    return mount.mounts_below(app.paths.devices("one") / "devices" / f"disk.{name}") != []


async def refused_start(app: App, name: str) -> str:
    """Why an instance does not start."""
    status, content = await app.call("PUT", f"/1.0/instances/{name}/state", {"action": "start", "timeout": 5})
    assert status == 202
    said: str = (await app.ended(content))["err"]
    return said


async def test_what_cannot_be_is_refused(one: App) -> None:
    for device, why in (
        ({"source": "cephfs:fs/"}, "not supported"),
        ({"source": "cloud-init:other"}, "not supported"),
        ({"source": "relative"}, "absolute path"),
        ({"source": "/srv", "path": "//"}, "only the root disk"),
        ({"source": "/srv", "propagation": "sideways"}, "propagation"),
        ({"source": "/srv", "size": "1GiB"}, "size quota"),
        ({"source": "/nowhere"}, "Missing source path '/nowhere'"),
        ({"source": "/srv", "path": "/" + "a" * 256}, "longer than a path can be"),
        ({"source": "gone", "pool": POOL}, "Storage volume not found"),
    ):
        disk = {"type": "disk", "path": "/data", **device}
        _, said = await one.refused("PATCH", ONE, {"devices": {"data": disk}})
        assert why in said
        assert (await one.get(ONE))["devices"] == {}
    _, said = await one.refused("PATCH", ONE, {"devices": {"\u20ac" * 22: {"type": "disk", "path": "/x", "source": "/srv"}}})
    assert said == "The maximum device name length is 64 characters"
    await one.set_state("one", "stop", force=True)
    disk = {"type": "disk", "path": "/data", "source": "/nowhere"}
    assert (await one.refused("PATCH", ONE, {"devices": {"data": disk}}))[1] == "Missing source path '/nowhere' for disk 'data'"
    await one.do("PATCH", ONE, {"devices": {"data": {**disk, "required": "false"}}})


async def test_two_disks_at_one_path(one: App, tmp_path: Path) -> None:
    """Whoever names them: an instance, its profile, or one of both when the other is changed."""
    disk = {"type": "disk", "source": str(tmp_path), "path": "/data"}
    await one.do("POST", "/1.0/profiles", {"name": "data", "devices": {"a": disk}})
    same = {"devices": {"b": {**disk, "path": "//data/"}}}
    assert "More than one disk" in (await one.refused("PATCH", ONE, {"profiles": ["default", "data"], **same}))[1]
    await one.do("PATCH", ONE, same)
    await one.do("POST", "/1.0/profiles", {"name": "late"})
    await one.do("PATCH", ONE, {"profiles": ["default", "late"]})
    _, content = await one.call("PATCH", "/1.0/profiles/late", {"devices": {"c": disk}})
    assert "profile change still saved" in content["error"] and "More than one disk" in content["error"]
    await one.set_state("one", "stop", force=True)
    assert "More than one disk" in (await refused_start(one, "one"))


async def test_kinds_of_sources(one: App, tmp_path: Path) -> None:
    disks = {
        "deep": {"source": str(tmp_path), "path": "/deep", "recursive": "true", "readonly": "true"},
        "seed": {"source": "cloud-init:config", "path": "/var/lib/cloud/seed/nocloud"},
        "char": {"source": "/dev/null", "path": "/null"},
        "gone": {"source": "/nowhere", "path": "/gone", "required": "false"},
    }
    await one.do("PATCH", ONE, {"devices": {name: {"type": "disk", **keys} for name, keys in disks.items()}})
    await one.do("PATCH", ONE, {"devices": {}})
    await one.do("PUT", ONE, {"profiles": ["default"], "devices": {}})
    assert os.listdir(one.paths.devices("one") / "devices") == []


async def test_a_volume_is_for_one_map_of_ids(one: App) -> None:
    """Unless it is said to be for several, or to be shown with the host's."""
    await make_volume(one, "own")
    await make_volume(one, "shifted", **{"security.shifted": "true"})
    await make_volume(one, "plain", **{"security.unmapped": "true"})
    names = ("own", "shifted", "plain")
    await one.do("PATCH", ONE, {"devices": {name: volume(name) for name in names}})
    await one.create("same", devices={"own": volume("own")})
    await one.set_state("same", "start")
    await one.create("two", config={"security.idmap.isolated": "true"})
    await one.set_state("two", "start")
    for name in ("shifted", "plain"):
        await one.do("PATCH", "/1.0/instances/two", {"devices": {name: volume(name)}})
    _, said = await one.refused("PATCH", "/1.0/instances/two", {"devices": {"own": volume("own")}})
    assert 'and storage volume "own" are not identical' in said
    await one.set_state("two", "stop", force=True)
    await one.do("PATCH", "/1.0/instances/two", {"devices": {"own": volume("own")}})
    assert "not identical" in await refused_start(one, "two")


async def test_two_that_take_a_volume_in_one_moment(one: App) -> None:
    """Neither has it by its devices when the other asks."""
    await make_volume(one, "own")
    await one.create("two", config={"security.idmap.isolated": "true"})
    await one.set_state("two", "start")
    taken = [one.call("PATCH", f"/1.0/instances/{name}", {"devices": {"own": volume("own")}}) for name in ("one", "two")]
    answers = await asyncio.gather(*taken)
    assert sorted(status for status, _ in answers) == [200, 409]
    assert any("are not identical" in content.get("error", "") for _, content in answers)


async def test_a_profile_gives_a_volume(one: App) -> None:
    """Who has it by a profile counts; who has another device in its place does not."""
    await make_volume(one, "own")
    await one.do("POST", "/1.0/profiles", {"name": "shared", "devices": {"data": volume("own")}})
    await one.create("member", profiles=["default", "shared"], devices={"data": {"type": "none"}})
    await one.create("two", config={"security.idmap.isolated": "true"}, devices={"own": volume("own")})
    await one.set_state("two", "start")
    await one.do("PATCH", "/1.0/instances/member", {"devices": {"data": volume("own")}})
    assert 'container "two"' in await refused_start(one, "member")


async def test_a_guest_that_rebooted_unseen_has_its_disk_again(one: App, tmp_path: Path) -> None:
    await one.do("PATCH", ONE, {"devices": {"data": {"type": "disk", "source": str(tmp_path), "path": "/data"}}})
    core = one.daemon.instances.core
    loaded = await core.load("default", "one")
    devices = one.daemon.instances.devices
    wanted = {loaded.machine: devices.plugged(loaded)}
    assert await core.driver.lacking(wanted) == {}
    for spec in wanted[loaded.machine].mounts:
        await core.driver.detach_mount(loaded.machine, spec)
    assert await core.driver.lacking(wanted) == {loaded.machine: {"data"}}
    await DeviceRepair(core, devices).run([loaded])
    assert await core.driver.lacking(wanted) == {}


async def test_what_a_hotplug_left_is_put_away(one: App, tmp_path: Path) -> None:
    """Also when the instance stops before anybody has looked."""
    disk = {"data": {"type": "disk", "source": str(tmp_path), "path": "/data"}}
    core, devices = one.daemon.instances.core, one.daemon.instances.devices
    for put_away in ("repair", "stop"):
        loaded = await core.load("default", "one")
        await devices.plug(loaded, "data", disk["data"], disk)
        assert is_pinned(one, "data")
        if put_away == "repair":
            await DeviceRepair(core, devices).run([loaded])
        else:
            await one.set_state("one", "stop", force=True)
        assert not is_pinned(one, "data")


async def test_a_change_that_a_hotplug_left_half_made_is_taken_back(one: App, tmp_path: Path) -> None:
    """The machine had the disk as it was going to be, and the database as it was."""
    disk = {"type": "disk", "source": str(tmp_path), "path": "/data", "readonly": "true"}
    await one.do("PATCH", ONE, {"devices": {"data": disk}})
    core, devices = one.daemon.instances.core, one.daemon.instances.devices
    loaded = await core.load("default", "one")
    writable = {"data": {**disk, "readonly": "false"}}
    await devices.unplug(loaded, "data", disk)
    await devices.plug(loaded, "data", writable["data"], writable)
    await DeviceRepair(core, devices).run([loaded])
    (entry,) = mount.mounts_below(one.paths.devices("one") / "devices")
    assert "ro" in entry.options
