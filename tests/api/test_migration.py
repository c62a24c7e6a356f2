"""Instances from and to other servers, as far as the link carries words: offers, answers, refusals. Files need the real thing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import WSMsgType
from links import SECONDS, Links, linked, refusal, told

from atoll.domain import protobuf
from atoll.domain.caller import Caller, Protocol
from atoll.domain.errors import Conflict
from atoll.domain.migration_header import ALL_BTRFS_FEATURES, Config, Control, Header, IdMapping, LayerFeatures, Snapshot

OPERATION = "https://127.0.0.1:1/1.0/operations/00000000-0000-4000-8000-000000000000"
SECRETS = {"control": "c", "fs": "f"}


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who fails does not wait long for the other side's reason."""
    monkeypatch.setattr("atoll.services.migration.channels._REASON_SECONDS", 0.2)


async def offered(app: Any, name: str = "new", **source: Any) -> tuple[dict[str, Any], Links]:
    """An instance that is to be pushed: the operation's first answer, and its websockets."""
    body = {"name": name, "source": {"type": "migration", "mode": "push", **source}}
    status, content = await app.call("POST", "/1.0/instances", body)
    assert status == 202, content
    return content, await linked(app, content)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xff\xff",
        protobuf.encode(Header(snapshot_names=("../x",), snapshots=(Snapshot(name="../x", architecture=2),))),
        protobuf.encode(Header(snapshot_names=("a",))),
        protobuf.encode(Header(idmap=(IdMapping(hostid=-5, nsid=0, maprange=1),))),
        protobuf.encode(Header(snapshot_names=("s",), snapshots=(Snapshot(name="s", architecture=77),))),
        protobuf.encode(Header(snapshot_names=("s", "s"), snapshots=(Snapshot(name="s"), Snapshot(name="s")))),
        protobuf.encode(Header(snapshot_names=("s",), snapshots=(Snapshot(name="s", architecture=2, created_at=1 << 60),))),
        protobuf.encode(
            Header(
                snapshot_names=tuple(f"s{number}" for number in range(5001)),
                snapshots=tuple(Snapshot(name=f"s{number}", architecture=2) for number in range(5001)),
            )
        ),
    ],
)
async def test_an_offer_of_a_stranger_is_refused_and_nothing_stays(app: Any, data: bytes) -> None:
    content, links = await offered(app)
    await links["control"].send_bytes(data)
    await refusal(links)
    assert (await app.ended(content))["status"] == "Failure"
    assert await app.get("/1.0/instances") == []
    assert list(app.paths.backups.glob(".import-*")) == []


@pytest.mark.parametrize("fs", [1, 2, 3, 77, -1])
async def test_a_way_that_this_pool_does_not_have_becomes_rsync(app: Any, fs: int) -> None:
    content, links = await offered(app)
    layers = LayerFeatures(version=1, image="../../etc")
    header = Header(fs=fs, btrfs_features=ALL_BTRFS_FEATURES, layers=layers, volume_size=-5)
    await links["control"].send_bytes(protobuf.encode(header))
    answer = await told(links["control"], Header)
    assert (answer.fs, answer.btrfs_features, answer.layers) == (0, None, None)
    await links["fs"].close()
    assert (await app.ended(content))["status"] == "Failure"
    assert await app.get("/1.0/instances") == []


@pytest.mark.parametrize("garbage", [b"\xff" * 70_000, b"{}"])
async def test_garbage_where_files_should_come(app: Any, garbage: bytes) -> None:
    content, links = await offered(app)
    await links["control"].send_bytes(protobuf.encode(Header(index_version=1)))
    await told(links["control"], Header)
    await links["fs"].send_bytes(garbage)
    await links["fs"].send_str("")
    await links["fs"].close()
    assert (await app.ended(content))["status"] == "Failure"
    assert await app.get("/1.0/instances") == []
    assert list(app.paths.backups.glob(".import-*")) == []


async def test_an_offer_has_the_configuration_of_all_snapshots(app: Any) -> None:
    """In one message, as LXD sends it, and so does the answer."""
    config = (Config("user.user-data", "x" * 30_000),)
    told_of = tuple(Snapshot(name=f"s{number}", architecture=2, config=config) for number in range(60))
    content, links = await offered(app)
    await links["control"].send_bytes(
        protobuf.encode(Header(snapshot_names=tuple(each.name for each in told_of), snapshots=told_of))
    )
    assert (await told(links["control"], Header)).snapshots == told_of
    await links["fs"].close()
    assert (await app.ended(content))["status"] == "Failure"


async def test_a_snapshot_passes_the_gate_of_every_instance(app: Any) -> None:
    bad = Snapshot(name="s", architecture=2, config=(Config("raw.idmap", "x\ny"),))
    content, links = await offered(app)
    await links["control"].send_bytes(protobuf.encode(Header(snapshot_names=("s",), snapshots=(bad,))))
    assert (await told(links["control"], Header)).snapshot_names == ("s",)
    assert not (await told(links["control"], Control)).success
    assert (await app.ended(content))["status"] == "Failure"
    assert await app.get("/1.0/instances") == []


async def test_a_snapshot_keeps_the_template_that_waited_and_nothing_of_its_host(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def receive(_: object, arrival: Any, *__: object) -> None:
        await arrival.target.driver.create(arrival.target.volume)
        await arrival.target.driver.snapshot(arrival.target.at("s").volume)

    monkeypatch.setattr("atoll.services.migration.by_rsync.RsyncTransport.receive", receive)
    config = {"user.a": "1", "volatile.apply_template": "create", "volatile.last_state.power": "RUNNING"}
    snapshot = Snapshot(name="s", architecture=2, config=tuple(Config(*each) for each in config.items()))
    content, links = await offered(app)
    await links["control"].send_bytes(protobuf.encode(Header(snapshot_names=("s",), snapshots=(snapshot,))))
    await told(links["control"], Header)
    assert (await told(links["control"], Control)).success
    assert (await app.ended(content))["err"] == ""
    found = (await app.get("/1.0/instances/new/snapshots/s"))["config"]
    assert (found["user.a"], found["volatile.apply_template"]) == ("1", "create")
    assert "volatile.last_state.power" not in found


async def test_success_is_told_when_nothing_can_take_it_back(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Upon it who moves an instance deletes the original."""

    async def receive(_: object, arrival: Any, *__: object) -> None:
        await arrival.target.driver.create(arrival.target.volume)

    async def apply(*_: object) -> None:
        raise Conflict("this size cannot be")

    monkeypatch.setattr("atoll.services.migration.by_rsync.RsyncTransport.receive", receive)
    with monkeypatch.context() as patched:
        patched.setattr("atoll.services.instances.root_size.apply", apply)
        content, links = await offered(app)
        await links["control"].send_bytes(protobuf.encode(Header()))
        await told(links["control"], Header)
        assert await refusal(links) == "this size cannot be"
        assert "this size cannot be" in (await app.ended(content))["err"]
    assert await app.get("/1.0/instances") == []
    content, links = await offered(app)
    await links["control"].send_bytes(protobuf.encode(Header()))
    await told(links["control"], Header)
    assert (await told(links["control"], Control)).success
    assert (await app.ended(content))["err"] == ""


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
    for answer in (
        Header(fs=1),
        Header(fs=1, btrfs_features=ALL_BTRFS_FEATURES),
        Header(layers=LayerFeatures(version=1)),
        Header(refresh=True, snapshot_names=("other",)),
    ):
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


async def asked(app: Any, name: str = "c1") -> tuple[dict[str, Any], Links]:
    """An instance that is to be pulled."""
    status, content = await app.call("POST", f"/1.0/instances/{name}", {"migration": True})
    assert status == 202, content
    return content, await linked(app, content)


async def test_a_running_source_goes_on_and_a_stopped_one_is_held(app: Any) -> None:
    await app.create("c1")
    content, links = await asked(app)
    assert await told(links["control"], Header)
    busy = asyncio.create_task(app.set_state("c1", "start"))
    await asyncio.sleep(0.05)
    assert not busy.done()
    await links["control"].close()
    await app.ended(content)
    await busy

    content, links = await asked(app)
    assert await told(links["control"], Header)
    await app.do("POST", "/1.0/instances/c1/snapshots", {"name": "meanwhile"})
    await app.set_state("c1", "stop", force=True)
    assert "being copied" in (await app.refused("POST", "/1.0/instances/c1", {"name": "c2"}))[1]
    gone = asyncio.create_task(app.do("DELETE", "/1.0/instances/c1"))
    await asyncio.sleep(0.05)
    assert not gone.done()
    await links["control"].send_bytes(protobuf.encode(Control(success=False, message="no")))
    assert "The other server failed: no" in (await app.ended(content))["err"]
    await gone
    assert [each for each in await app.daemon.storage.driver("pool").inventory() if each.kind == "container"] == []


async def test_of_two_refreshes_that_cross_each_other_one_gives_up(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.services.migration.handshake._PATIENCE", (0.1, 0.2))
    await app.create("c1")
    sending, source = await asked(app)
    assert await told(source["control"], Header)
    content, links = await offered(app, name="c1", refresh=True)
    await links["control"].send_bytes(protobuf.encode(Header()))
    assert "busy" in await refusal(links)
    assert "busy" in (await app.ended(content))["err"]
    await source["control"].close()
    await app.ended(sending)
