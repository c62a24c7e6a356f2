"""Snapshots of instances."""

from __future__ import annotations

import time
from typing import Any

import pytest

from atoll.drivers.storage.contract import VolumeId, VolumeKind
from atoll.services.instances import backup_index, backup_yaml
from atoll.services.instances.backup_index import Subject

C1 = "/1.0/instances/c1"
SNAPSHOTS = f"{C1}/snapshots"


async def test_taken_listed_changed_renamed_deleted(app: Any) -> None:
    await app.create("c1", config={"user.a": "b"})
    await app.do("POST", SNAPSHOTS, {"name": "s1"})
    await app.do("POST", SNAPSHOTS, {"name": "s2", "expires_at": "2100-01-02T03:04:05Z"})
    assert await app.get(SNAPSHOTS) == [f"{SNAPSHOTS}/s1", f"{SNAPSHOTS}/s2"]
    first, second = await app.get(f"{SNAPSHOTS}?recursion=1")
    assert (first["name"], first["config"]["user.a"], first["stateful"]) == ("s1", "b", False)
    assert second["expires_at"].startswith("2100-01-02T03:04:05")
    await app.do("PUT", f"{SNAPSHOTS}/s1", {"expires_at": "2101-01-01T00:00:00Z"})
    assert (await app.get(f"{SNAPSHOTS}/s1"))["expires_at"].startswith("2101-")
    await app.do("POST", f"{SNAPSHOTS}/s1", {"name": "s3"})
    assert sorted(await app.get(SNAPSHOTS)) == [f"{SNAPSHOTS}/s2", f"{SNAPSHOTS}/s3"]
    await app.do("DELETE", f"{SNAPSHOTS}/s3")
    assert await app.get(SNAPSHOTS) == [f"{SNAPSHOTS}/s2"]
    full = await app.get(f"{C1}?recursion=1")
    assert [each["name"] for each in full["snapshots"]] == ["s2"]


async def test_expands_to_its_own_keys_and_its_profiles(app: Any) -> None:
    await app.do("POST", "/1.0/profiles", {"name": "p1", "config": {"user.p": "profile"}})
    await app.create("c1", profiles=["default", "p1"], config={"user.a": "then"})
    await app.do("POST", SNAPSHOTS, {"name": "s1"})
    await app.do("PATCH", C1, {"config": {"user.a": "now", "user.p": "own", "user.later": "1"}})
    found = (await app.get(f"{SNAPSHOTS}/s1"))["expanded_config"]
    assert (found["user.a"], found["user.p"], found.get("user.later")) == ("then", "profile", None)


async def test_names_are_made_up(app: Any) -> None:
    await app.create("c1")
    await app.do("POST", SNAPSHOTS, {})
    await app.do("POST", SNAPSHOTS, {})
    assert await app.get(SNAPSHOTS) == [f"{SNAPSHOTS}/snap0", f"{SNAPSHOTS}/snap1"]


async def test_restoring_brings_the_configuration_back(app: Any) -> None:
    await app.create("c1", config={"user.a": "old"})
    await app.do("POST", SNAPSHOTS, {"name": "s1"})
    await app.do("PATCH", C1, {"config": {"user.a": "new"}})
    await app.do("PUT", C1, {"restore": "s1"})
    assert (await app.get(C1))["config"]["user.a"] == "old"


async def test_a_copy_of_a_snapshot(app: Any) -> None:
    await app.create("c1", config={"user.a": "old"})
    await app.do("POST", SNAPSHOTS, {"name": "s1"})
    await app.do("PATCH", C1, {"config": {"user.a": "new"}})
    await app.do("POST", "/1.0/instances", {"name": "c2", "source": {"type": "copy", "source": "c1/s1"}})
    assert (await app.get("/1.0/instances/c2"))["config"]["user.a"] == "old"


async def test_they_go_with_their_instance_and_follow_its_name(app: Any) -> None:
    await app.create("c1")
    await app.do("POST", SNAPSHOTS, {"name": "s1"})
    await app.do("POST", C1, {"name": "c2"})
    assert await app.get("/1.0/instances/c2/snapshots") == ["/1.0/instances/c2/snapshots/s1"]
    await app.do("DELETE", "/1.0/instances/c2")
    assert app.daemon.storage.driver("pool").sizes == {}


async def test_what_is_refused(app: Any) -> None:
    await app.create("c1")
    await app.do("POST", SNAPSHOTS, {"name": "s1"})
    assert (await app.refused("POST", SNAPSHOTS, {"name": "s1"}))[0] in (400, 409)
    assert (await app.refused("POST", SNAPSHOTS, {"name": "a/b"}))[0] == 400
    assert (await app.refused("POST", SNAPSHOTS, {"name": "s2", "expires_at": "soon"}))[0] == 400
    assert (await app.refused("POST", SNAPSHOTS, {"name": "s2", "stateful": True}))[0] == 400
    assert (await app.refused("GET", f"{SNAPSHOTS}/absent"))[0] == 404
    assert (await app.refused("PUT", C1, {"restore": "absent"}))[0] in (400, 404)
    assert await app.get(SNAPSHOTS) == [f"{SNAPSHOTS}/s1"]


async def test_a_description_that_takes_long_is_written_seldom(app: Any, monkeypatch: pytest.MonkeyPatch, until: Any) -> None:
    write, written = backup_index.instance, 0

    def slow(subject: Subject) -> bytes:
        nonlocal written
        written += 1
        end = time.thread_time() + 0.1
        while time.thread_time() < end:  # in a thread
            pass
        return write(subject)

    folder = app.daemon.storage.driver("pool").data(VolumeId(VolumeKind.INSTANCE, "default", "c1"))
    folder.mkdir(parents=True)
    await app.create("c1")
    monkeypatch.setattr(backup_index, "instance", slow)
    begun = time.monotonic()
    for number in range(12):
        await app.do("POST", SNAPSHOTS, {"name": f"s{number}"})
    file = folder / "backup.yaml"
    await until(lambda: file.exists() and "name: s11" in file.read_text())
    assert written <= 2 + (time.monotonic() - begun) / (0.1 * backup_yaml._REST)
