"""Instances from creation to deletion, as clients do it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

C1 = "/1.0/instances/c1"


async def test_creation_gives_a_stopped_instance(app: Any) -> None:
    await app.create("c1", config={"user.a": "b"}, description="first", ephemeral=True)
    found = await app.get(C1)
    assert (found["status"], found["status_code"]) == ("Stopped", 102)
    assert (found["description"], found["ephemeral"], found["profiles"]) == ("first", True, ["default"])
    assert found["config"]["user.a"] == "b"
    assert found["config"]["volatile.uuid"]
    assert found["expanded_devices"] == {"root": {"type": "disk", "pool": "pool", "path": "/"}}
    assert (found["type"], found["project"], found["location"], found["devices"]) == ("container", "default", "none", {})


async def test_a_name_is_made_up_where_none_is_given(app: Any) -> None:
    await app.create("")
    [url] = await app.get("/1.0/instances")
    assert url.removeprefix("/1.0/instances/")


async def test_lists(app: Any) -> None:
    await app.create("c1")
    await app.create("c2", config={"user.role": "web"})
    await app.set_state("c2", "start")
    assert await app.get("/1.0/instances") == ["/1.0/instances/c1", "/1.0/instances/c2"]
    assert await app.get("/1.0/containers") == ["/1.0/containers/c1", "/1.0/containers/c2"]
    assert await app.get("/1.0/virtual-machines") == []
    assert await app.get("/1.0/instances?instance-type=virtual-machine") == []
    plain = await app.get("/1.0/instances?recursion=1")
    assert [(each["name"], each["status"]) for each in plain] == [("c1", "Stopped"), ("c2", "Running")]
    assert "state" not in plain[0]
    full = await app.get("/1.0/instances?recursion=2")
    assert [each["state"]["status"] for each in full] == ["Stopped", "Running"]
    assert full[1]["state"]["pid"] > 0
    assert full[0]["snapshots"] is None and full[0]["backups"] is None


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("status eq Running", ["c2"]),
        ("status ne Running", ["c1"]),
        ("config.user.role eq web", ["c2"]),
        ("name eq c.*", ["c1", "c2"]),
        ("name eq c1 or config.user.role eq web", ["c1", "c2"]),
        ("name eq c1 and status eq Running", []),
    ],
)
@pytest.mark.parametrize("recursion", [0, 1, 2])
async def test_filters(app: Any, text: str, names: list[str], recursion: int) -> None:
    await app.create("c1")
    await app.create("c2", config={"user.role": "web"})
    await app.set_state("c2", "start")
    found = await app.get("/1.0/instances", params={"filter": text, "recursion": recursion})
    assert [each.rpartition("/")[2] if recursion == 0 else each["name"] for each in found] == names


async def test_put_replaces_and_patch_changes(app: Any) -> None:
    await app.create("c1", config={"user.a": "1", "user.b": "2"})
    before = await app.get(C1)
    await app.do("PATCH", C1, {"config": {"user.a": "changed", "user.b": ""}, "description": "d"})
    found = await app.get(C1)
    assert found["config"]["user.a"] == "changed"
    assert "user.b" not in found["config"]
    assert found["description"] == "d"
    assert found["config"]["volatile.uuid"] == before["config"]["volatile.uuid"]
    volatile = {key: value for key, value in found["config"].items() if key.startswith("volatile.")}
    await app.do("PUT", C1, {"config": {**volatile, "limits.cpu": "2"}, "profiles": ["default"]})
    found = await app.get(C1)
    assert found["config"] == {**volatile, "limits.cpu": "2"}
    assert found["description"] == ""


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_a_stale_etag_is_refused(app: Any, method: str) -> None:
    await app.create("c1")
    tag = await app.etag(C1)
    body = {"config": (await app.get(C1))["config"], "profiles": ["default"], "description": "new"}
    await app.do(method, C1, body, headers={"If-Match": tag})
    assert (await app.get(C1))["description"] == "new"
    status, _ = await app.refused(method, C1, {**body, "description": "newer"}, headers={"If-Match": tag})
    assert status == 412
    assert (await app.get(C1))["description"] == "new"
    assert await app.etag(C1) != tag


async def test_rename(app: Any) -> None:
    await app.create("c1")
    await app.create("c2")
    status, _ = await app.refused("POST", C1, {"name": "c2"})
    assert status in (400, 409)
    await app.do("POST", C1, {"name": "c3"})
    assert await app.get("/1.0/instances") == ["/1.0/instances/c2", "/1.0/instances/c3"]
    volumes = await app.get("/1.0/storage-pools/pool/volumes/container")
    assert {url.rpartition("/")[2] for url in volumes} == {"c2", "c3"}
    await app.set_state("c3", "start")
    status, _ = await app.refused("POST", "/1.0/instances/c3", {"name": "c4"})
    assert status == 400


async def test_state_changes(app: Any) -> None:
    await app.create("c1")
    states = []
    for action in ("start", "freeze", "unfreeze", "restart", "stop"):
        await app.set_state("c1", action)
        states.append((await app.get(f"{C1}/state"))["status"])
    assert states == ["Running", "Frozen", "Running", "Running", "Stopped"]
    assert (await app.get(C1))["last_used_at"] > "2000"


@pytest.mark.parametrize("action", ["stop", "freeze", "unfreeze", "restart"])
async def test_what_a_stopped_instance_cannot_do(app: Any, action: str) -> None:
    await app.create("c1")
    status, text = await app.refused("PUT", f"{C1}/state", {"action": action})
    assert status == 400 and text
    assert (await app.get(C1))["status"] == "Stopped"


async def test_starting_twice_is_refused(app: Any) -> None:
    await app.create("c1")
    await app.set_state("c1", "start")
    _, text = await app.refused("PUT", f"{C1}/state", {"action": "start"})
    assert "already running" in text or "running already" in text


async def test_many_starts_at_once_start_once(app: Any) -> None:
    await app.create("c1")
    answers = await asyncio.gather(*(app.call("PUT", f"{C1}/state", {"action": "start"}) for _ in range(8)))
    ended = [await app.ended(content) for _, content in answers]
    assert [each["status"] for each in ended].count("Success") == 1


async def test_all_at_once(app: Any) -> None:
    for name in ("c1", "c2", "c3"):
        await app.create(name)
    await app.do("PUT", "/1.0/instances", {"state": {"action": "start"}})
    assert {each["status"] for each in await app.get("/1.0/instances?recursion=1")} == {"Running"}
    await app.do("PUT", "/1.0/instances", {"state": {"action": "stop", "force": True}})
    assert {each["status"] for each in await app.get("/1.0/instances?recursion=1")} == {"Stopped"}


async def test_a_running_instance_is_not_deleted(app: Any) -> None:
    await app.create("c1")
    await app.set_state("c1", "start")
    assert (await app.refused("DELETE", C1))[0] == 400
    await app.set_state("c1", "stop")
    await app.do("DELETE", C1)
    assert await app.get("/1.0/instances") == []
    assert await app.get("/1.0/storage-pools/pool/volumes") == []
    assert (await app.refused("GET", C1)) == (404, "Instance not found")


async def test_a_protected_instance_is_not_deleted(app: Any) -> None:
    await app.create("c1", config={"security.protection.delete": "true"})
    assert (await app.refused("DELETE", C1))[0] == 400
    await app.do("PATCH", C1, {"config": {"security.protection.delete": "false"}})
    await app.do("DELETE", C1)


async def test_an_ephemeral_instance_is_gone_after_its_stop(app: Any, until: Any) -> None:
    await app.create("c1", ephemeral=True)
    await app.set_state("c1", "start")
    await app.set_state("c1", "stop")

    async def is_gone() -> bool:
        return await app.get("/1.0/instances") == []

    await until(is_gone)


async def test_copies(app: Any) -> None:
    await app.create("c1", config={"user.a": "b", "limits.cpu": "1"})
    source = {"type": "copy", "source": "c1"}
    await app.do("POST", "/1.0/instances", {"name": "c2", "source": source, "config": {"limits.cpu": "2"}})
    original, copied = await app.get(C1), await app.get("/1.0/instances/c2")
    assert (copied["config"]["user.a"], copied["config"]["limits.cpu"]) == ("b", "2")
    assert copied["config"]["volatile.uuid"] != original["config"]["volatile.uuid"]
    status, _ = await app.refused("POST", "/1.0/instances", {"name": "c3", "source": {"type": "copy", "source": "absent"}})
    assert status == 404


async def test_the_same_name_twice(app: Any) -> None:
    await app.create("c1")
    status, text = await app.refused("POST", "/1.0/instances", {"name": "c1", "source": {"type": "none"}})
    assert status in (400, 409) and "already exists" in text
    bodies = [{"name": "c2", "source": {"type": "none"}}] * 6
    answers = await asyncio.gather(*(app.call("POST", "/1.0/instances", body) for body in bodies))
    assert sorted(status for status, _ in answers)[0] == 202
    assert [status for status, _ in answers].count(202) == 1


async def test_a_machine_that_was_on_is_on_after_a_restart_of_the_daemon(app: Any) -> None:
    await app.create("c1")
    await app.create("c2")
    await app.set_state("c1", "start")
    await app.restart()
    assert [each["status"] for each in await app.get("/1.0/instances?recursion=1")] == ["Running", "Stopped"]
    await app.set_state("c1", "stop")


async def test_exec_with_recorded_output(app: Any) -> None:
    await app.create("c1")
    await app.set_state("c1", "start")
    ended = await app.do("POST", f"{C1}/exec", {"command": ["true"], "record-output": True})
    assert ended["metadata"]["return"] == 0
    assert set(ended["metadata"]["output"]) == {"1", "2"}


async def test_exec_needs_a_running_instance(app: Any) -> None:
    await app.create("c1")
    status, text = await app.refused("POST", f"{C1}/exec", {"command": ["true"]})
    assert status == 400 and "not running" in text
