"""Instances from and to other servers, as far as the link carries words: offers, answers, refusals. Files need the real thing."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType

from atoll.domain import protobuf
from atoll.domain.caller import Caller, Protocol
from atoll.domain.migration_header import Config, Control, Header, IdMapping, Snapshot

SECONDS = 10
OPERATION = "https://127.0.0.1:1/1.0/operations/00000000-0000-4000-8000-000000000000"
SECRETS = {"control": "c", "fs": "f"}
Links = dict[str, aiohttp.ClientWebSocketResponse]


async def linked(app: Any, content: dict[str, Any]) -> Links:
    """The websockets of an operation whose creator we are."""
    assert content["metadata"]["class"] == "websocket"
    secrets = content["metadata"]["metadata"]
    assert set(secrets) == {"control", "fs"}
    return {
        name: await app.session.ws_connect(f"{content['operation']}/websocket?secret={secret}")
        for name, secret in secrets.items()
    }


async def offered(app: Any, name: str = "new", **source: Any) -> tuple[dict[str, Any], Links]:
    """An instance that is to be pushed: the operation's first answer, and its websockets."""
    body = {"name": name, "source": {"type": "migration", "mode": "push", **source}}
    status, content = await app.call("POST", "/1.0/instances", body)
    assert status == 202, content
    return content, await linked(app, content)


async def told(socket: aiohttp.ClientWebSocketResponse, kind: type[Any]) -> Any:
    return protobuf.decode(kind, await socket.receive_bytes(timeout=SECONDS))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xff\xff",
        protobuf.encode(Header(snapshot_names=("../x",), snapshots=(Snapshot(name="../x", architecture=2),))),
        protobuf.encode(Header(snapshot_names=("a",))),
        protobuf.encode(Header(idmap=(IdMapping(hostid=-5, nsid=0, maprange=1),))),
        protobuf.encode(Header(snapshot_names=("s",), snapshots=(Snapshot(name="s", architecture=77),))),
    ],
)
async def test_an_offer_of_a_stranger_is_refused_and_nothing_stays(app: Any, data: bytes) -> None:
    content, links = await offered(app)
    await links["control"].send_bytes(data)
    answer = await told(links["control"], Control)
    assert not answer.success
    assert answer.message
    assert (await app.ended(content))["status"] == "Failure"
    assert await app.get("/1.0/instances") == []
    assert list(app.paths.backups.glob(".import-*")) == []


async def test_a_snapshot_passes_the_gate_of_every_instance(app: Any) -> None:
    bad = Snapshot(name="s", architecture=2, config=(Config("raw.idmap", "x\ny"),))
    content, links = await offered(app)
    await links["control"].send_bytes(protobuf.encode(Header(snapshot_names=("s",), snapshots=(bad,))))
    assert (await told(links["control"], Header)).snapshot_names == ("s",)
    assert not (await told(links["control"], Control)).success
    assert (await app.ended(content))["status"] == "Failure"
    assert await app.get("/1.0/instances") == []


async def test_a_source_that_leaves(app: Any) -> None:
    content, links = await offered(app)
    for socket in links.values():
        await socket.close()
    ended = await app.ended(content)
    assert "connection to the other server broke" in ended["err"]
    assert await app.get("/1.0/instances") == []


async def test_the_reason_of_the_other_server_is_told(app: Any) -> None:
    content, links = await offered(app)
    await links["control"].send_bytes(protobuf.encode(Header()))
    assert (await told(links["control"], Header)).fs == 0
    await links["control"].send_bytes(protobuf.encode(Control(success=False, message="no disk\nleft")))
    await links["fs"].close()
    assert "the other server says: no disk left" in (await app.ended(content))["err"]


async def test_a_snapshot_that_a_copy_has_is_not_asked_for_again(app: Any) -> None:
    await app.create("c1")
    await app.do("POST", "/1.0/instances/c1/snapshots", {"name": "mine"})
    content, links = await offered(app, name="c1", refresh=True)
    new = Snapshot(name="new", architecture=2, created_at=1_700_000_000)
    await links["control"].send_bytes(protobuf.encode(Header(snapshot_names=("new",), snapshots=(new,))))
    answer = await told(links["control"], Header)
    assert (answer.refresh, answer.snapshot_names) == (True, ("new",))
    await links["fs"].close()
    await links["control"].close()
    assert (await app.ended(content))["status"] == "Failure"
    record = await app.get("/1.0/instances/c1")
    assert record["status"] == "Stopped"  # it can be refreshed again: nothing half-made is left of the attempt
    assert [url.rpartition("/")[2] for url in await app.get("/1.0/instances/c1/snapshots")] == []


async def test_what_a_source_offers(app: Any) -> None:
    await app.create("c1", config={"user.a": "1"})
    await app.do("POST", "/1.0/instances/c1/snapshots", {"name": "s0"})
    status, content = await app.call("POST", "/1.0/instances/c1", {"migration": True, "live": False})
    assert status == 202
    assert content["metadata"]["may_cancel"]
    links = await linked(app, content)
    offer = await told(links["control"], Header)
    assert (offer.fs, offer.snapshot_names, offer.idmap, offer.index_version) == (0, ("s0",), (), 1)
    assert {each.key: each.value for each in offer.snapshots[0].config}["user.a"] == "1"
    await links["control"].send_bytes(protobuf.encode(Header(snapshot_names=("s0",), index_version=1)))
    index = json.loads(await links["fs"].receive_bytes(timeout=SECONDS))
    assert index["config"]["Container"]["name"] == "c1"
    assert (await links["fs"].receive(timeout=SECONDS)).type is WSMsgType.TEXT
    await links["fs"].send_bytes(b'{"StatusCode":500,"Error":"full"}')
    await links["fs"].send_str("")
    assert "full" in (await app.ended(content))["err"]
    assert (await app.get("/1.0/instances/c1"))["name"] == "c1"


async def test_a_target_may_want_only_what_was_offered(app: Any) -> None:
    await app.create("c1")
    for answer in (Header(fs=1), Header(refresh=True, snapshot_names=("other",))):
        _, content = await app.call("POST", "/1.0/instances/c1", {"migration": True})
        links = await linked(app, content)
        await told(links["control"], Header)
        await links["control"].send_bytes(protobuf.encode(answer))
        assert not (await told(links["control"], Control)).success
        assert (await app.ended(content))["status"] == "Failure"


async def test_a_source_that_waits_can_be_cancelled(app: Any) -> None:
    await app.create("c1")
    _, content = await app.call("POST", "/1.0/instances/c1", {"migration": True})
    await app.do("DELETE", content["operation"])
    assert (await app.ended(content))["status"] == "Cancelled"


async def test_secrets_are_for_their_creator_alone(app: Any) -> None:
    content, links = await offered(app)
    secrets = content["metadata"]["metadata"]
    shown = json.dumps(await app.get(content["operation"]))
    assert not any(secret in shown for secret in secrets.values())
    again = await app.session.get(f"{content['operation']}/websocket?secret={'0' * 64}")
    assert again.status == 403
    for socket in links.values():
        await socket.close()
    await app.ended(content)


@pytest.mark.parametrize(
    "source",
    [
        {"mode": "elsewhere"},
        {"mode": "pull"},
        {"mode": "pull", "operation": OPERATION.replace("https", "http"), "secrets": SECRETS},
        {"mode": "pull", "operation": "https://h/../etc", "secrets": SECRETS},
        {"mode": "pull", "operation": OPERATION, "secrets": {"control": "c"}},
        {"mode": "pull", "operation": OPERATION, "secrets": SECRETS, "certificate": "x"},
        {"mode": "push", "live": True},
    ],
)
async def test_requests_that_can_be_none(app: Any, source: dict[str, Any]) -> None:
    status, _ = await app.refused("POST", "/1.0/instances", {"name": "new", "source": {"type": "migration", **source}})
    assert status == 400
    assert await app.get("/1.0/instances") == []


async def test_a_server_that_cannot_be_reached(app: Any) -> None:
    source = {"type": "migration", "mode": "pull", "operation": OPERATION, "secrets": SECRETS}
    _, content = await app.call("POST", "/1.0/instances", {"name": "new", "source": source})
    ended = await app.ended(content)
    assert "cannot be connected to" in ended["err"]
    assert "secret" not in ended["err"]
    assert await app.get("/1.0/instances") == []


async def test_processes_cannot_be_moved(app: Any) -> None:
    await app.create("c1")
    status, content = await app.call("POST", "/1.0/instances/c1", {"migration": True, "live": True})
    assert (status, "CRIU" in content["error"]) == (400, True)


async def test_one_who_may_not_use_a_project_pushes_nothing_into_it(app: Any) -> None:
    await app.do("POST", "/1.0/projects", {"name": "p"})
    app.caller = Caller(Protocol.TLS, username="r", trusted=True, restricted=True, projects=frozenset({"p"}))
    status, _ = await app.refused("POST", "/1.0/instances", {"name": "new", "source": {"type": "migration", "mode": "push"}})
    assert status in (403, 404)
    app.caller = None
    assert await app.get("/1.0/instances") == []
