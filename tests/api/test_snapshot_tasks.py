"""Snapshots by pattern, by schedule and at starts; their expiry; restores that are cut off. Of instances and of volumes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from atoll.db import instances as rows
from atoll.domain import clock
from atoll.domain.errors import HostError
from atoll.domain.status import InstanceStatus
from atoll.drivers.instance.contract import MachineId
from atoll.drivers.storage.contract import VolumeId
from atoll.services.instances import pauses
from atoll.services.instances.snapshot_restore import RESTORING, RESTORING_RUNNING, restored_config
from atoll.services.instances.snapshots import CREATING, DELETING
from atoll.services.volume_snapshot_tasks import VolumeSnapshotTasks

C1 = "/1.0/instances/c1"
SNAPSHOTS = f"{C1}/snapshots"
VOLUMES = "/1.0/storage-pools/pool/volumes/custom"
NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC).astimezone()
PAST = "2001-01-01T00:00:00Z"


async def names(app: Any, url: str = SNAPSHOTS) -> list[str]:
    return [each.rpartition("/")[2] for each in await app.get(url)]


async def seen(app: Any) -> list[tuple[str, str]]:
    """Descriptions and ends of all operations that are known."""
    listed = await app.get("/1.0/operations?recursion=1")
    return [(each["description"], each["status"]) for group in listed.values() for each in group]


def volume_tasks(app: Any) -> VolumeSnapshotTasks:
    daemon = app.daemon
    return VolumeSnapshotTasks(daemon.global_db, daemon.volumes, daemon.custom_volumes.snapshots, daemon.operations)


# --- expiry ----------------------------------------------------------------------------------------------------------------


async def test_the_instance_says_when_its_snapshots_expire(app: Any) -> None:
    await app.create("c1", config={"snapshots.expiry": "1d"})
    await app.do("POST", SNAPSHOTS, {"name": "by-key"})
    await app.do("POST", SNAPSHOTS, {"name": "never", "expires_at": clock.NEVER})
    await app.do("POST", SNAPSHOTS, {"name": "null", "expires_at": None})
    await app.do("POST", SNAPSHOTS, {"name": "then", "expires_at": "2100-01-01T02:00:00.123456789+02:00"})
    found = {each["name"]: each["expires_at"] for each in await app.get(f"{SNAPSHOTS}?recursion=1")}
    assert found["never"] == clock.NEVER
    assert found["then"].startswith("2100-01-01T00:00:00.123456")
    tomorrow = clock.rfc3339((datetime.now(UTC) + timedelta(days=1)).timestamp())
    assert found["by-key"][:13] in (tomorrow[:13], found["null"][:13])


async def test_expiry_is_put_and_patched(app: Any) -> None:
    await app.create("c1")
    await app.do("POST", SNAPSHOTS, {"name": "s"})
    one = f"{SNAPSHOTS}/s"
    tag = await app.etag(one)
    assert (await app.do("PUT", one, {"expires_at": "2100-01-01T00:00:00Z"}))["description"] == "Updating snapshot"
    assert (await app.call("PUT", one, {"expires_at": None}, headers={"If-Match": tag}))[0] == 412
    await app.do("PATCH", one, {})
    assert (await app.get(one))["expires_at"].startswith("2100-")
    await app.do("PUT", one, {"expires_at": None})
    assert (await app.get(one))["expires_at"] == clock.NEVER


async def test_what_is_no_time_is_refused(app: Any) -> None:
    await app.create("c1")
    await app.do("POST", SNAPSHOTS, {"name": "s"})
    for text in ("soon", "9999-12-31T23:59:59-12:00", "2026-13-01T00:00:00Z", "\x00", "9" * 70_000):
        for method, url in (("POST", SNAPSHOTS), ("PUT", f"{SNAPSHOTS}/s"), ("PATCH", f"{SNAPSHOTS}/s")):
            assert (await app.call(method, url, {"expires_at": text}))[0] == 400
    assert await names(app) == ["s"]


async def test_what_expired_goes_also_after_a_restart(app: Any, until: Any) -> None:
    await app.create("c1")
    for name, expires_at in (("old", PAST), ("later", "2100-01-01T00:00:00Z"), ("never", None)):
        await app.do("POST", SNAPSHOTS, {"name": name, "expires_at": expires_at})
    await app.restart()

    async def done() -> bool:
        return ("Cleaning up expired instance snapshots", "Success") in await seen(app)

    await until(done)
    assert await names(app) == ["later", "never"]


async def test_what_is_busy_expires_later(app: Any) -> None:
    await app.create("c1")
    await app.do("POST", SNAPSHOTS, {"name": "old", "expires_at": PAST})
    parts = app.daemon.instances
    async with parts.core.hold_snapshot(MachineId("default", "c1"), "old"):
        await asyncio.wait_for(parts.snapshot_tasks.expire(()), 30)
    assert await names(app) == ["old"]
    await parts.snapshot_tasks.expire(())
    assert await names(app) == []


async def test_one_that_cannot_be_removed_keeps_no_other(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await app.create("c1")
    for name in ("bad", "good"):
        await app.do("POST", SNAPSHOTS, {"name": name, "expires_at": PAST})
    driver = app.daemon.storage.driver("pool")
    delete = driver.delete

    async def refuse(volume: VolumeId) -> None:
        if volume.snapshot == "bad":
            raise HostError("the disk is read-only")
        await delete(volume)

    expire = app.daemon.instances.snapshot_tasks.expire
    with monkeypatch.context() as broken:
        broken.setattr(driver, "delete", refuse)
        await expire(())
        assert ("Cleaning up expired instance snapshots", "Failure") in await seen(app)
        assert await names(app) == ["bad"]
    await expire(())
    assert await names(app) == []


# --- patterns and schedules ------------------------------------------------------------------------------------------------


async def test_names_by_pattern(app: Any) -> None:
    await app.create("c1", config={"snapshots.pattern": "{{ creation_date|date:'2006' }}-%d"})
    for _ in range(2):
        await app.do("POST", SNAPSHOTS, {})
    year = datetime.now().astimezone().year
    assert await names(app) == [f"{year}-0", f"{year}-1"]


BAD_VALUES = [
    ("snapshots.pattern", "{{ creation_date"),
    ("snapshots.pattern", "../../etc"),
    ("snapshots.pattern", "%d%d"),
    ("snapshots.pattern", "{{ 'a'|center:99999999 }}"),
    ("snapshots.pattern", "x" * 65536),
    ("snapshots.schedule", "61 * * * *"),
    ("snapshots.schedule", "@sometimes"),
    ("snapshots.schedule", "*,*,* * * *"),
    ("snapshots.schedule", "@daily\n@hourly"),
    ("snapshots.schedule", "1," * 40_000 + "1 * * * *"),
    ("snapshots.expiry", "1 fortnight"),
    ("snapshots.expiry", "99999999y"),
    ("snapshots.schedule.stopped", "perhaps"),
]


async def test_bad_values_are_refused_and_change_nothing(app: Any) -> None:
    await app.create("c1")
    await app.do("POST", VOLUMES, {"name": "v"})
    before = await app.get(C1), await app.get(f"{VOLUMES}/v")
    for key, value in BAD_VALUES:
        assert (await app.refused("PATCH", C1, {"config": {key: value}}))[0] == 400, value[:60]
        assert (await app.refused("PATCH", f"{VOLUMES}/v", {"config": {key: value}}))[0] == 400, value[:60]
    assert (await app.get(C1), await app.get(f"{VOLUMES}/v")) == before


async def test_bad_names_are_refused(app: Any) -> None:
    await app.create("c1")
    await app.do("POST", SNAPSHOTS, {"name": "s"})
    for name in ("..", ".", "a/b", "a b", "a\nb", "a\x00b", "-x", "x" * 65536, "\u202e"):
        assert (await app.call("POST", SNAPSHOTS, {"name": name}))[0] == 400
        assert (await app.call("POST", f"{SNAPSHOTS}/s", {"name": name}))[0] == 400
    assert await names(app) == ["s"]


async def test_a_schedule_of_its_own_goes_before_those_of_profiles(app: Any) -> None:
    await app.do("POST", "/1.0/profiles", {"name": "daily", "config": {"snapshots.schedule": "@daily"}})
    await app.do("POST", "/1.0/profiles", {"name": "noon", "config": {"snapshots.schedule": "0 12 * * *"}})
    stopped = {"snapshots.schedule.stopped": "true"}
    await app.create("none", config=stopped)
    await app.create("first", profiles=["default", "daily", "noon"], config=stopped)
    await app.create("last", profiles=["default", "noon", "daily"], config=stopped)
    await app.create("own", profiles=["default", "daily"], config={**stopped, "snapshots.schedule": "@hourly"})
    await app.create("never", profiles=["default", "noon"], config={**stopped, "snapshots.schedule": "@never"})
    local_noon = NOON.replace(hour=12)
    await app.daemon.instances.snapshot_tasks.take([local_noon - timedelta(minutes=1), local_noon])
    listed = await app.get("/1.0/instances?recursion=2")
    assert {each["name"] for each in listed if each["snapshots"]} == {"first", "own"}
    assert ("Creating scheduled instance snapshots", "Success") in await seen(app)


async def test_stopped_instances_only_by_their_key(app: Any) -> None:
    for name in ("off", "on", "off-too"):
        await app.create(name, config={"snapshots.schedule": "* * * * *"})
    await app.do("PATCH", "/1.0/instances/off-too", {"config": {"snapshots.schedule.stopped": "true"}})
    await app.set_state("on", "start")
    take = app.daemon.instances.snapshot_tasks.take
    await take([])
    await take([NOON])
    await take([NOON + timedelta(minutes=1), NOON + timedelta(minutes=2)])  # one, however many minutes
    counts = {each["name"]: len(each["snapshots"] or ()) for each in await app.get("/1.0/instances?recursion=2")}
    assert counts == {"off": 0, "on": 2, "off-too": 2}


async def test_a_failing_one_leaves_a_warning_and_the_others_theirs(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("bad", "good"):
        await app.create(name, config={"snapshots.schedule": "* * * * *", "snapshots.schedule.stopped": "true"})
    driver = app.daemon.storage.driver("pool")
    snapshot = driver.snapshot

    async def refuse(volume: VolumeId) -> None:
        if volume.name == "bad":
            raise HostError("no space left")
        await snapshot(volume)

    take = app.daemon.instances.snapshot_tasks.take
    with monkeypatch.context() as broken:
        broken.setattr(driver, "snapshot", refuse)
        await take([NOON])
    assert (await names(app, "/1.0/instances/bad/snapshots"), await names(app, "/1.0/instances/good/snapshots")) == (
        [],
        ["snap0"],
    )
    (warning,) = await app.get("/1.0/warnings?recursion=1")
    assert (warning["entity_url"], warning["status"], warning["last_message"]) == ("/1.0/instances/bad", "new", "no space left")
    await take([NOON])
    assert (await app.get("/1.0/warnings?recursion=1"))[0]["status"] == "resolved"


async def test_a_run_takes_a_fixed_number_of_statements(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    counted, me = 0, asyncio.current_task()
    for number in range(6):
        await app.create(f"c{number}", config={"snapshots.schedule": "@yearly"})
    begin = app.daemon.global_db.read

    def read() -> Any:
        nonlocal counted
        counted += asyncio.current_task() is me  # the daemon's own work reads too
        return begin()

    monkeypatch.setattr(app.daemon.global_db, "read", read)
    await app.daemon.instances.snapshot_tasks.take([NOON])
    await app.daemon.instances.snapshot_tasks.expire(())
    assert counted == 2


async def test_a_snapshot_at_each_start(app: Any) -> None:
    await app.create("c1", config={"snapshots.schedule": "@startup, 10 5-8/2 * * *", "snapshots.expiry": "1d"})
    await app.set_state("c1", "start")
    await app.set_state("c1", "restart", force=True)
    found = await app.get(f"{SNAPSHOTS}?recursion=1")
    assert [each["name"] for each in found] == ["snap0", "snap1"]
    assert clock.NEVER not in {each["expires_at"] for each in found}


async def test_a_start_does_not_fail_by_its_snapshot(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await app.create("c1", config={"snapshots.schedule": "@startup"})

    async def refuse(_: VolumeId) -> None:
        raise HostError("no space left")

    monkeypatch.setattr(app.daemon.storage.driver("pool"), "snapshot", refuse)
    await app.set_state("c1", "start")
    assert (await app.get(C1))["status"] == "Running"
    assert await names(app) == []


# --- volumes ---------------------------------------------------------------------------------------------------------------


async def test_volumes_have_patterns_schedules_and_expiry_too(app: Any) -> None:
    keys = {"snapshots.schedule": "@hourly", "snapshots.pattern": "v%d", "snapshots.expiry": "1H"}
    await app.do("POST", VOLUMES, {"name": "v", "config": keys})
    await app.do("POST", VOLUMES, {"name": "plain"})
    tasks = volume_tasks(app)
    await tasks.take([NOON])
    await tasks.take([NOON + timedelta(minutes=1)])
    assert await names(app, f"{VOLUMES}/v/snapshots") == ["v0"]
    assert (await app.get(f"{VOLUMES}/v/snapshots/v0"))["expires_at"] != clock.NEVER
    await app.do("POST", f"{VOLUMES}/v/snapshots", {})
    await app.do("POST", f"{VOLUMES}/v/snapshots", {"name": "kept", "expires_at": clock.NEVER})
    await app.do("PATCH", f"{VOLUMES}/v/snapshots/v1", {"expires_at": PAST})
    await tasks.expire(())
    assert await names(app, f"{VOLUMES}/v/snapshots") == ["v0", "kept"]
    assert await names(app, f"{VOLUMES}/plain/snapshots") == []
    assert ("Cleaning up expired volume snapshots", "Success") in await seen(app)


async def test_a_volume_does_not_start(app: Any) -> None:
    await app.do("POST", VOLUMES, {"name": "v"})
    assert (await app.refused("PATCH", f"{VOLUMES}/v", {"config": {"snapshots.schedule": "@startup"}}))[0] == 400


async def test_the_volume_of_an_instance_has_its_snapshots(app: Any) -> None:
    volume = "/1.0/storage-pools/pool/volumes/container/c1"
    await app.create("c1")
    await app.do("PATCH", volume, {"config": {"user.foo": "old"}, "description": "first"})
    await app.do("POST", SNAPSHOTS, {"name": "s0"})
    await app.do("PATCH", volume, {"config": {"user.foo": "new"}, "description": "second"})
    taken = f"{volume}/snapshots/s0"
    assert ((await app.get(taken))["config"]["user.foo"], (await app.get(taken))["description"]) == ("old", "first")
    await app.do("PUT", taken, {"description": "mine", "expires_at": PAST})
    assert ((await app.get(taken))["description"], (await app.get(taken))["expires_at"]) == ("mine", clock.NEVER)
    await app.do("PUT", C1, {"restore": "s0"})
    assert ((await app.get(volume))["config"]["user.foo"], (await app.get(volume))["description"]) == ("old", "mine")
    await app.do("POST", f"{SNAPSHOTS}/s0", {"name": "s1"})
    assert await names(app, f"{volume}/snapshots") == ["s1"]
    await app.do("DELETE", f"{SNAPSHOTS}/s1")
    assert await names(app, f"{volume}/snapshots") == []


# --- running instances, restores, kills ------------------------------------------------------------------------------------


async def test_a_running_instance_is_paused_and_that_is_told(app: Any) -> None:
    await app.create("c1")
    await app.set_state("c1", "start")
    ended = await app.do("POST", SNAPSHOTS, {"name": "s"})
    assert 0 <= ended["metadata"]["atoll_freeze_ms"] < 1000
    assert (await app.get(C1))["status"] == "Running"
    await app.set_state("c1", "freeze")
    assert (await app.do("POST", SNAPSHOTS, {"name": "t"}))["metadata"]["atoll_freeze_ms"] == 0
    assert (await app.get(C1))["status"] == "Frozen"
    await app.set_state("c1", "stop", force=True)
    assert (await app.do("POST", SNAPSHOTS, {"name": "u"}))["metadata"] is None


async def test_what_a_kill_left_paused_goes_on(app: Any) -> None:
    for name in ("c1", "c2"):
        await app.create(name)
        await app.set_state(name, "start")
        await app.set_state(name, "freeze")
    mark = app.paths.run("c1") / pauses.MARK
    mark.touch()
    await app.restart()
    assert ((await app.get(C1))["status"], (await app.get("/1.0/instances/c2"))["status"]) == ("Running", "Frozen")
    assert not mark.exists()


async def test_a_restore_keeps_who_the_instance_is(app: Any) -> None:
    await app.create("c1", config={"user.a": "old"}, ephemeral=True)
    await app.do("POST", SNAPSHOTS, {"name": "s"})
    await app.set_state("c1", "start")
    await app.do("PATCH", C1, {"config": {"user.a": "new"}, "description": "changed"})
    running = (await app.get(C1))["config"]
    await app.do("PUT", C1, {"restore": "c1/s"})
    found = await app.get(C1)
    assert (found["status"], found["config"]["user.a"], found["description"]) == ("Running", "old", "")
    assert found["config"]["volatile.uuid"] == running["volatile.uuid"]


def test_which_volatile_keys_are_restored() -> None:
    present = {"volatile.uuid": "u", "volatile.last_state.power": "RUNNING", "volatile.eth0.host_name": "veth1", "user.a": "1",
               "volatile.eth0.hwaddr": "new", "volatile.idmap.base": "5", "volatile.eth1.hwaddr": "only"}  # fmt: skip
    taken = {"volatile.uuid": "u", "volatile.last_state.power": "STOPPED", "volatile.eth0.host_name": "veth0",
             "volatile.eth0.hwaddr": "old", "volatile.idmap.base": "7", "volatile.apply_template": "create",
             "user.b": "2"}  # fmt: skip
    assert restored_config(present, taken) == {
        "volatile.uuid": "u", "volatile.last_state.power": "RUNNING", "volatile.eth0.host_name": "veth1",
        "volatile.idmap.base": "5", "volatile.eth0.hwaddr": "old", "volatile.eth1.hwaddr": "only",
        "volatile.apply_template": "create", "user.b": "2",
    }  # fmt: skip
    for another in ("v", ""):
        of_another = {**taken, "volatile.uuid": another, "volatile.eth2.hwaddr": "another's"}
        addresses = {k: v for k, v in restored_config(present, of_another).items() if k.endswith(".hwaddr")}
        assert addresses == {"volatile.eth0.hwaddr": "new", "volatile.eth1.hwaddr": "only"}


async def test_a_restore_that_fails_leaves_the_instance_as_it_was(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await app.create("c1")
    await app.do("POST", SNAPSHOTS, {"name": "s"})
    await app.set_state("c1", "start")

    async def refuse(_: VolumeId) -> None:
        raise HostError("no space left")

    monkeypatch.setattr(app.daemon.storage.driver("pool"), "restore", refuse)
    assert "no space left" in (await app.refused("PUT", C1, {"restore": "s"}))[1]
    assert (await app.get(C1))["status"] == "Running"


async def test_a_restore_without_a_root_disk_is_refused_before_anything_happens(app: Any) -> None:
    root = {"type": "disk", "path": "/", "pool": "pool"}
    await app.do("POST", "/1.0/profiles", {"name": "rooted", "devices": {"root": root}})
    await app.create("c1", profiles=["rooted"])
    await app.do("POST", SNAPSHOTS, {"name": "s"})
    await app.do("PUT", C1, {"profiles": [], "devices": {"root": root}})
    await app.do("DELETE", "/1.0/profiles/rooted")
    await app.set_state("c1", "start")
    assert "root" in (await app.refused("PUT", C1, {"restore": "s"}))[1]
    assert (await app.get(C1))["status"] == "Running"


async def set_phases(app: Any, *, instance: str = "", snapshot: str = "") -> None:
    """Leave c1 and its snapshot s as a kill would."""
    async with app.daemon.global_db.write() as tx:
        found = await rows.find(tx, "default", "c1")
        await rows.set_phase(tx, found.id, instance)
        await rows.set_snapshot_phase(tx, (await rows.find_snapshot(tx, found.id, "s")).id, snapshot)


@pytest.mark.parametrize(("phase", "power"), [(RESTORING, "STOPPED"), (RESTORING_RUNNING, "RUNNING")])
async def test_a_restore_that_was_cut_off_is_finished(app: Any, phase: str, power: str) -> None:
    await app.create("c1", config={"user.a": "old", "boot.autostart": "false"})
    await app.do("POST", SNAPSHOTS, {"name": "s"})
    await app.do("PATCH", C1, {"config": {"user.a": "new"}})
    await set_phases(app, instance=f"{phase}s")
    await app.restart()
    found = await app.get(C1)
    assert (found["config"]["user.a"], found["config"].get("volatile.last_state.power", "STOPPED")) == ("old", power)
    await app.set_state("c1", "start")


async def test_a_restore_that_was_cut_off_before_the_stop_is_given_up(app: Any) -> None:
    await app.create("c1", config={"user.a": "old"})
    await app.do("POST", SNAPSHOTS, {"name": "s"})
    await app.set_state("c1", "start")
    await app.do("PATCH", C1, {"config": {"user.a": "new"}})
    await set_phases(app, instance=f"{RESTORING_RUNNING}s")
    await app.restart()
    assert app.daemon.instances.core.driver.status(MachineId("default", "c1")) is InstanceStatus.RUNNING
    assert (await app.get(C1))["config"]["user.a"] == "new"


@pytest.mark.parametrize("phase", [CREATING, DELETING])
async def test_half_snapshots_are_not_seen_and_go(app: Any, phase: str) -> None:
    await app.create("c1")
    await app.do("POST", SNAPSHOTS, {"name": "s"})
    await set_phases(app, snapshot=phase)
    assert await names(app) == []
    assert (await app.get(f"{C1}?recursion=1"))["snapshots"] is None
    assert (await app.refused("GET", f"{SNAPSHOTS}/s"))[0] == 404
    assert (await app.refused("PUT", C1, {"restore": "s"}))[0] == 404
    assert (await app.refused("POST", SNAPSHOTS, {"name": "s"}))[0] == 409
    await app.restart()
    await app.do("POST", SNAPSHOTS, {"name": "s"})
