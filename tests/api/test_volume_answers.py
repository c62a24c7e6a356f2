"""What scripts and clients go by when they use the storage API as LXD has it: answers, events, operations, orders."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.services.events import Event

POOLS = "/1.0/storage-pools"
CUSTOM = f"{POOLS}/pool/volumes/custom"

Told = list[tuple[str, str, str, dict[str, str]]]


@pytest.fixture
def told(app: Any) -> Told:
    """(action, source, project, context) of each lifecycle event from now on."""
    found: Told = []

    def hear(event: Event) -> None:
        if event.type == "lifecycle":
            found.append((event.metadata["action"], event.metadata["source"], event.project, event.metadata.get("context", {})))

    app.daemon.hub.watch(hear)
    return found


async def test_a_new_volume_is_answered_with_nothing(app: Any) -> None:
    """LXD answers so; with a Location, as of other new objects, scripts that compare the status would fail."""
    status, content = await app.call("POST", CUSTOM, {"name": "v1", "type": "custom"})
    assert (status, content["metadata"]) == (200, {})


async def test_events_of_pools(app: Any, told: Told) -> None:
    await app.do("POST", POOLS, {"name": "a?b", "driver": "dir"})
    await app.do("DELETE", f"{POOLS}/a%3Fb")
    assert told == [(f"storage-pool-{verb}", f"{POOLS}/a%3Fb", "default", {}) for verb in ("created", "deleted")]


async def test_events_of_volumes(app: Any, told: Told) -> None:
    await app.do("POST", CUSTOM, {"name": "v1"})
    await app.do("POST", f"{CUSTOM}/v1/snapshots", {"name": "s"})
    await app.do("POST", f"{CUSTOM}/v1/snapshots/s", {"name": "t"})
    await app.do("PUT", f"{CUSTOM}/v1", {"restore": "t", "config": {"user.a": "b"}})
    await app.do("POST", f"{CUSTOM}/v1", {"name": "v2"})
    await app.do("DELETE", f"{CUSTOM}/v2")
    assert [(action, source.removeprefix(CUSTOM), context) for action, source, _, context in told] == [
        ("storage-volume-created", "/v1", {"type": "custom"}),
        ("storage-volume-snapshot-created", "/v1/snapshots/s", {"type": "custom"}),
        ("storage-volume-snapshot-renamed", "/v1/snapshots/t", {"old_name": "s"}),
        ("storage-volume-restored", "/v1", {"snapshot": "t"}),
        ("storage-volume-updated", "/v1", {}),
        ("storage-volume-renamed", "/v2", {"old_name": "v1"}),
        ("storage-volume-snapshot-deleted", "/v2/snapshots/t", {}),
        ("storage-volume-deleted", "/v2", {}),
    ]


async def test_a_move_is_told_as_a_new_volume_there(app: Any, told: Told) -> None:
    await app.do("POST", POOLS, {"name": "other", "driver": "dir"})
    await app.do("POST", CUSTOM, {"name": "v1"})
    del told[:]
    await app.do("POST", f"{CUSTOM}/v1", {"name": "v1", "pool": "other"})
    there = f"{POOLS}/other/volumes/custom/v1"
    assert [each[:2] for each in told] == [("storage-volume-created", there), ("storage-volume-deleted", f"{CUSTOM}/v1")]


async def test_events_of_an_instance_s_volume_and_snapshots(app: Any, told: Told) -> None:
    await app.create("c1")
    await app.do("POST", "/1.0/instances/c1/snapshots", {"name": "s"})
    del told[:]
    own = f"{POOLS}/pool/volumes/container/c1"
    await app.do("PATCH", own, {"description": "d"})
    await app.do("PATCH", f"{own}/snapshots/s", {"description": "d"})
    await app.do("DELETE", "/1.0/instances/c1")
    assert [each[:2] for each in told] == [
        ("storage-volume-updated", own),
        ("storage-volume-snapshot-updated", f"{own}/snapshots/s"),
        ("instance-snapshot-deleted", "/1.0/instances/c1/snapshots/s"),
        ("instance-deleted", "/1.0/instances/c1"),
    ]


async def test_a_profile_s_change_is_told_of_its_instances(app: Any, told: Told) -> None:
    await app.create("c1")
    profile = await app.get("/1.0/profiles/default")
    del told[:]
    await app.do("PUT", "/1.0/profiles/default", {**profile, "description": "d"})
    assert ("instance-updated", "/1.0/instances/c1", "default", {}) in told


async def test_an_operation_is_of_the_project_that_asks(app: Any) -> None:
    """Clients wait for it in the events of their project, whoever has the volume."""
    await app.do("POST", "/1.0/projects", {"name": "p1", "config": {"features.storage.volumes": "false"}})
    await app.do("POST", POOLS, {"name": "other", "driver": "dir"})
    await app.do("POST", f"{CUSTOM}?project=p1", {"name": "v1"})
    for method, path, body in (
        ("POST", "v1/snapshots", {"name": "s"}),
        ("POST", "v1/snapshots/s", {"name": "t"}),
        ("DELETE", "v1/snapshots/t", None),
        ("POST", "v1/backups", {"name": "b"}),
        ("POST", "v1/backups/b", {"name": "c"}),
        ("DELETE", "v1/backups/c", None),
        ("POST", "v1", {"name": "v1", "pool": "other"}),
    ):
        _, content = await app.call(method, f"{CUSTOM}/{path}?project=p1", body)
        [running] = [each for each in app.daemon.operations.find_all("p1") if each.url == content["operation"]]
        assert (await app.ended(content))["err"] == "", running.url


async def test_snapshots_among_others(app: Any) -> None:
    """As LXD has them: by their volume's name as well, and null for no expiry."""
    await app.do("POST", CUSTOM, {"name": "v1"})
    for body in ({"name": "b"}, {"name": "a", "expires_at": "2100-01-01T00:00:00Z"}):
        await app.do("POST", f"{CUSTOM}/v1/snapshots", body)
    found = await app.get(f"{CUSTOM}/v1/snapshots?recursion=1")
    assert [(each["name"], each["expires_at"]) for each in found] == [("v1/b", None), ("v1/a", "2100-01-01T00:00:00Z")]
    alone = await app.get(f"{CUSTOM}/v1/snapshots/b")
    assert (alone["name"], alone["expires_at"]) == ("b", "0001-01-01T00:00:00Z")
    assert [each["name"] for each in await app.get(f"{CUSTOM}?recursion=1")] == ["v1", "v1/a", "v1/b"]


async def test_names_are_refused_at_once(app: Any) -> None:
    await app.do("POST", CUSTOM, {"name": "v1"})
    for name in ("s", "t"):
        await app.do("POST", f"{CUSTOM}/v1/snapshots", {"name": name})
    for path, body, expected in (
        ("v1/snapshots", {"name": "s"}, (409, 'Snapshot "s" already in use')),
        ("v1/snapshots/s", {"name": "t"}, (409, 'Snapshot "t" already in use')),
        ("v1/snapshots/s", {}, (400, "Snapshot name may not be empty")),
        ("v1", {}, (400, "Storage volume name may not be empty")),
    ):
        assert await app.refused("POST", f"{CUSTOM}/{path}", body) == expected


async def test_a_disk_of_a_pool_that_is_not_there(app: Any) -> None:
    await app.create("c1")
    disk = {"type": "disk", "pool": "absent", "source": "v1", "path": "/data"}
    assert (await app.refused("PATCH", "/1.0/instances/c1", {"devices": {"d": disk}}))[1] == "Storage pool not found"
