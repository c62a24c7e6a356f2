"""Operations, events and warnings."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import aiohttp
import pytest

from atoll.domain.caller import NOBODY
from atoll.services.operations import OperationSpec

OPERATION = {
    "id",
    "class",
    "description",
    "created_at",
    "updated_at",
    "status",
    "status_code",
    "resources",
    "metadata",
    "may_cancel",
    "err",
    "location",
}


async def heard(socket: aiohttp.ClientWebSocketResponse, *, until: str) -> list[dict[str, Any]]:
    """Events up to and with the one that has this action, source or description."""
    found: list[dict[str, Any]] = []
    while not found or until not in (found[-1]["metadata"].get(key) for key in ("action", "source", "description")):
        found.append(await socket.receive_json(timeout=30))
    return found


def slow(app: Any, *, cancellable: bool = True) -> str:
    """The URL of an operation that ends only when it is cancelled."""

    async def work(_: Any) -> None:
        await asyncio.sleep(3600)

    url: str = app.daemon.operations.start(OperationSpec("Sleeping", work, cancellable=cancellable)).url
    return url


async def test_an_answer_has_the_whole_operation(app: Any) -> None:
    status, content = await app.call("POST", "/1.0/instances", {"name": "c1", "source": {"type": "none"}})
    assert status == 202
    assert set(content["metadata"]) == OPERATION
    assert content["operation"] == f"/1.0/operations/{content['metadata']['id']}"
    assert (content["status"], content["status_code"]) == ("Operation created", 100)
    assert content["metadata"]["resources"]["instances"] == ["/1.0/instances/c1"]
    ended = await app.ended(content)
    assert (ended["status"], ended["status_code"], ended["err"]) == ("Success", 200, "")


async def test_waiting_has_an_end(app: Any) -> None:
    url = slow(app)
    assert (await app.get(f"{url}/wait?timeout=0"))["status"] == "Running"
    listed = await app.get("/1.0/operations")
    assert url in listed["running"]
    assert (await app.get("/1.0/operations?recursion=1"))["running"][0]["description"] == "Sleeping"
    hub = await app.events("?type=lifecycle")
    await app.do("DELETE", url)
    (told,) = await heard(hub, until="operation-cancelled")
    assert (told["metadata"]["source"], told["project"]) == (url, "default")
    await hub.close()
    ended = await app.get(f"{url}/wait?timeout=30")
    assert (ended["status"], ended["status_code"], ended["resources"]) == ("Cancelled", 401, None)


async def test_what_cannot_be_cancelled(app: Any) -> None:
    url = slow(app, cancellable=False)
    assert (await app.refused("DELETE", url))[0] == 400
    app.daemon.operations.find(url.rpartition("/")[2]).task.cancel()
    assert (await app.refused("GET", f"/1.0/operations/{uuid.uuid4()}"))[0] == 404
    assert (await app.refused("GET", "/1.0/operations/nonsense/wait"))[0] == 404
    assert (await app.refused("GET", f"{url}/wait?timeout=soon"))[0] == 400


async def test_secrets_are_for_the_creator_alone(app: Any) -> None:
    await app.create("c1")
    await app.set_state("c1", "start")
    hub = await app.events("?type=operation")
    body = {"command": ["cat"], "wait-for-websocket": True, "interactive": False}
    status, content = await app.call("POST", "/1.0/instances/c1/exec", body)
    assert status == 202 and content["metadata"]["class"] == "websocket"
    secrets = content["metadata"]["metadata"]["fds"]
    assert set(secrets) == {"0", "1", "2", "control"}
    shown = await app.get(content["operation"])
    assert "fds" not in (shown["metadata"] or {})
    events = json.dumps(await heard(hub, until="Executing command"))
    assert not [secret for secret in secrets.values() if secret in events]
    for secret in ("", "0" * 64):
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await app.session.ws_connect(f"{content['operation']}/websocket?secret={secret}")
        assert caught.value.status == 403
    app.caller = NOBODY
    assert (await app.refused("GET", f"{content['operation']}/wait?secret=wrong"))[0] == 403
    assert (await app.get(f"{content['operation']}/wait?timeout=0&secret={secrets['0']}"))["status"] == "Running"
    app.caller = None
    await hub.close()


async def test_websockets_carry_a_command(app: Any) -> None:
    await app.create("c1")
    await app.set_state("c1", "start")
    body = {"command": ["cat"], "wait-for-websocket": True}
    _, content = await app.call("POST", "/1.0/instances/c1/exec", body)
    secrets = content["metadata"]["metadata"]["fds"]
    sockets = {
        name: await app.session.ws_connect(f"{content['operation']}/websocket?secret={secret}")
        for name, secret in secrets.items()
    }
    await sockets["0"].send_bytes(b"hello")
    message = await sockets["1"].receive(timeout=30)
    assert message.data == b"hello"
    await sockets["0"].send_str("")  # the end of the input
    ended = await app.ended(content)
    assert ended["metadata"]["return"] == 0
    for socket in sockets.values():
        await socket.close()


async def test_events_of_an_instances_life(app: Any) -> None:
    socket = await app.events("?type=lifecycle,operation")
    await app.create("c1")
    await app.set_state("c1", "start")
    await app.set_state("c1", "stop")
    await app.do("DELETE", "/1.0/instances/c1")
    found = await heard(socket, until="instance-deleted")
    actions = [event["metadata"]["action"] for event in found if event["type"] == "lifecycle"]
    assert actions == ["instance-created", "instance-started", "instance-stopped", "instance-deleted"]
    told = [event for event in found if event["type"] == "operation"]
    assert {"Creating instance", "Starting instance"} <= {event["metadata"]["description"] for event in told}
    for event in found:
        assert set(event) == {"type", "timestamp", "metadata", "location", "project"}
        assert event["project"] == "default"
    [created] = [event for event in found if event["metadata"].get("action") == "instance-created"]
    assert created["metadata"]["source"] == "/1.0/instances/c1"
    assert created["metadata"]["requestor"]["protocol"] == "unix"
    await socket.close()


async def test_events_by_project(app: Any) -> None:
    await app.do("POST", "/1.0/projects", {"name": "p1", "config": {"features.profiles": "false"}})
    here = await app.events("?type=lifecycle")
    there = await app.events("?type=lifecycle&project=p1")
    everywhere = await app.events("?type=lifecycle&all-projects=true")
    await app.create("c1")
    await app.create("c2", query="?project=p1")
    await app.create("last")
    await app.create("last", query="?project=p1")
    c1, c2, last, last_there = (f"/1.0/instances/{name}" for name in ("c1", "c2?project=p1", "last", "last?project=p1"))
    for socket, expected in ((here, [c1, last]), (there, [c2, last_there]), (everywhere, [c1, c2, last, last_there])):
        assert [event["metadata"]["source"] for event in await heard(socket, until=expected[-1])] == expected
    for socket in (here, there, everywhere):
        await socket.close()


async def test_asking_wrongly_for_events(app: Any) -> None:
    for query in ("?type=nonsense", "?all-projects=true&project=p1", ""):
        status, _ = await app.refused("GET", f"/1.0/events{query}")  # the last is no websocket
        assert status == 400


async def test_warnings(app: Any) -> None:
    await app.daemon.warnings.raise_("Something odd", "low", "it happened", entity_url="/1.0/instances/c1")
    [url] = await app.get("/1.0/warnings")
    found = await app.get(url)
    assert (found["type"], found["severity"], found["status"], found["count"]) == ("Something odd", "low", "new", 1)
    await app.do("PUT", url, {"status": "acknowledged"})
    assert (await app.get(url))["status"] == "acknowledged"
    assert (await app.refused("PUT", url, {"status": "nonsense"}))[0] == 400
    assert [each["uuid"] for each in await app.get("/1.0/warnings?recursion=1")] == [found["uuid"]]
    await app.do("DELETE", url)
    assert (await app.refused("DELETE", url))[0] == 404
    assert await app.get("/1.0/warnings") == []
