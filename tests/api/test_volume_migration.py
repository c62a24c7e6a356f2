"""Custom volumes from and to other servers, as far as the link carries words. Files need the real thing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import WSMsgType
from links import SECONDS, Links, linked, refusal, told

from atoll.domain import protobuf
from atoll.domain.caller import Caller, Protocol
from atoll.domain.errors import Conflict
from atoll.domain.migration_header import Config, Control, Header, Snapshot

POOL = "/1.0/storage-pools/pool"
CUSTOM = f"{POOL}/volumes/custom"


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who fails does not wait long for the other side's reason."""
    monkeypatch.setattr("atoll.services.migration.channels._REASON_SECONDS", 0.2)


async def offered(app: Any, name: str = "new", content_type: str = "", **source: Any) -> tuple[Any, Links]:
    """A volume that is to be pushed: the operation's first answer, and its websockets."""
    body = {"name": name, "content_type": content_type, "source": {"type": "migration", "mode": "push", **source}}
    status, content = await app.call("POST", CUSTOM, body)
    assert status == 202, content
    return content, await linked(app, content)


def snapshot(name: str, *, created_at: int = 0, **config: str) -> Snapshot:
    """As LXD tells one of a volume."""
    pairs = tuple(Config(key.replace("__", "."), value) for key, value in config.items())
    return Snapshot(name=name, config=pairs, architecture=0, created_at=created_at)


def offer(*snapshots: Snapshot, **fields: Any) -> bytes:
    return protobuf.encode(Header(snapshot_names=tuple(each.name for each in snapshots), snapshots=snapshots, **fields))


async def nothing_stays(app: Any) -> None:
    assert await app.get(CUSTOM) == []
    driver = app.daemon.storage.driver("pool")
    assert [each for each in await driver.inventory() if each.kind == "custom"] == []


OFFERS = [
    b"",
    b"\xff\xff\xff",
    offer(snapshot("../x")),
    offer(snapshot("a/b")),
    offer(snapshot("a"), snapshot("a")),
    protobuf.encode(Header(snapshot_names=("a",))),
    offer(snapshot("s", volatile__idmap__last="nonsense")),
    offer(fs=4),
]
INDEXES = [
    b"[]",
    b"{",
    b'{"config": {"VolumeSnapshots": [{"name": ".."}]}}',
    b'{"config": {"VolumeSnapshots": [{"name": "s", "config": {"size": "much"}}]}}',
    b'{"config": {"VolumeSnapshots": [{"name": "s", "created_at": "yesterday"}]}}',
    b'{"config": {"Volume": {"config": {"volatile.idmap.last": "x"}}}}',
    b" " * (5 << 20),
]


async def test_a_stranger_s_offers_are_refused_and_nothing_stays(app: Any) -> None:
    for data in OFFERS:
        content, links = await offered(app)
        await links["control"].send_bytes(data)
        await refusal(links)
        assert (await app.ended(content))["status"] == "Failure", data
    await nothing_stays(app)


async def test_a_stranger_s_indexes_are_refused_and_nothing_stays(app: Any) -> None:
    for index in INDEXES:
        content, links = await offered(app)
        await links["control"].send_bytes(offer(snapshot("s"), index_version=1))
        assert (await told(links["control"], Header)).snapshot_names == ("s",)
        await links["fs"].send_bytes(index)
        await links["fs"].send_str("")
        await refusal(links)
        assert (await app.ended(content))["status"] == "Failure", index
    await nothing_stays(app)


async def test_a_source_that_leaves_in_the_middle_of_the_files(app: Any) -> None:
    content, links = await offered(app)
    await links["control"].send_bytes(offer(snapshot("s", user__a="1")))
    assert (await told(links["control"], Header)).fs == 0
    await links["fs"].send_bytes(b"no rsync at all")
    for socket in links.values():
        await socket.close()
    assert (await app.ended(content))["status"] == "Failure"
    await nothing_stays(app)


async def disk(app: Any, *pieces: bytes) -> Any:
    """What becomes of a disk of 600,000 bytes of which LXD sends these pieces."""
    content, links = await offered(app, content_type="block")
    await links["control"].send_bytes(offer(fs=4, volume_size=600_000))
    assert (await told(links["control"], Header)).fs == 4
    for piece in pieces:
        await links["fs"].send_bytes(piece)
    await links["fs"].send_str("")
    assert await told(links["control"], Control)
    return await app.ended(content)


async def test_the_blocks_of_a_disk(app: Any) -> None:
    assert "more than it said" in (await disk(app, bytes(400_000), bytes(200_001)))["err"]
    await nothing_stays(app)
    assert (await disk(app, bytes(300_000), b"x" * 300_000))["err"] == ""
    driver = app.daemon.storage.driver("pool")
    (volume,) = [each for each in await driver.inventory() if each.kind == "custom"]
    assert (driver.data(volume) / "root.img").read_bytes() == bytes(300_000) + b"x" * 300_000


async def test_success_is_told_when_nothing_can_take_it_back(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Upon it who moves a volume deletes the original."""

    async def settle(*_: Any) -> None:
        raise Conflict("the database's disk is full")

    monkeypatch.setattr("atoll.db.storage.settle_volume", settle)
    content, links = await offered(app, content_type="block")
    await links["control"].send_bytes(offer(fs=4, volume_size=600_000))
    assert await told(links["control"], Header)
    await links["fs"].send_bytes(bytes(600_000))
    await links["fs"].send_str("")
    assert "disk is full" in await refusal(links)
    assert "disk is full" in (await app.ended(content))["err"]
    await nothing_stays(app)


async def test_a_refresh_asks_for_what_is_missing_and_a_failure_leaves_the_volume(app: Any) -> None:
    await app.do("POST", CUSTOM, {"name": "v1", "config": {"user.a": "mine"}})
    await app.do("POST", f"{CUSTOM}/v1/snapshots", {"name": "both"})
    content, links = await offered(app, name="v1", refresh=True)
    await links["control"].send_bytes(offer(snapshot("both"), snapshot("new")))
    answer = await told(links["control"], Header)
    assert (answer.refresh, answer.snapshot_names) == (True, ("new",))
    for socket in links.values():
        await socket.close()
    assert (await app.ended(content))["status"] == "Failure"
    assert (await app.get(f"{CUSTOM}/v1"))["config"]["user.a"] == "mine"
    assert [url.rpartition("/")[2] for url in await app.get(f"{CUSTOM}/v1/snapshots")] == ["both"]
    await app.do("PATCH", f"{CUSTOM}/v1", {"config": {"user.a": "changed"}})  # it is not busy any more


async def test_of_two_that_wait_for_each_other_one_gives_up(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.services.migration.handshake._PATIENCE", (0.1, 0.2))
    await app.do("POST", CUSTOM, {"name": "v1"})
    sending, source = await sent(app, "v1")
    assert await told(source["control"], Header)  # from now on it is held
    content, links = await offered(app, name="v1", refresh=True)
    await links["control"].send_bytes(offer())
    assert "busy" in await refusal(links)
    assert "busy" in (await app.ended(content))["err"]
    await source["control"].send_bytes(protobuf.encode(Control(success=False, message="busy there")))
    assert "The other server failed: busy there" in (await app.ended(sending))["err"]


async def sent(app: Any, name: str, **fields: Any) -> tuple[Any, Links]:
    """A volume that is to be pulled."""
    status, content = await app.call("POST", f"{CUSTOM}/{name}", {"name": "there", "migration": True, **fields})
    assert status == 202, content
    return content, await linked(app, content)


async def test_what_a_source_offers(app: Any) -> None:
    await app.do("POST", CUSTOM, {"name": "v1", "description": "d", "config": {"user.a": "1"}})
    await app.do("POST", f"{CUSTOM}/v1/snapshots", {"name": "s0"})
    await app.do("PATCH", f"{CUSTOM}/v1", {"config": {"user.a": "2"}})
    content, links = await sent(app, "v1")
    assert content["metadata"]["may_cancel"]
    told_offer = await told(links["control"], Header)
    assert (told_offer.fs, told_offer.snapshot_names, told_offer.index_version) == (0, ("s0",), 1)
    assert {each.key: each.value for each in told_offer.snapshots[0].config} == {"user.a": "1"}
    await links["control"].send_bytes(protobuf.encode(Header(snapshot_names=("s0",), index_version=1)))
    index = json.loads(await links["fs"].receive_bytes(timeout=SECONDS))["config"]
    assert (index["Volume"]["name"], index["Volume"]["config"]["user.a"], index["Volume"]["description"]) == ("v1", "2", "d")
    assert [(each["name"], each["config"]) for each in index["VolumeSnapshots"]] == [("s0", {"user.a": "1"})]
    assert (await links["fs"].receive(timeout=SECONDS)).type is WSMsgType.TEXT
    await links["fs"].send_bytes(b'{"StatusCode":500,"Error":"full"}')
    await links["fs"].send_str("")
    assert "full" in (await app.ended(content))["err"]
    assert (await app.get(f"{CUSTOM}/v1"))["name"] == "v1"


async def test_a_snapshot_is_offered_as_a_volume(app: Any) -> None:
    await app.do("POST", CUSTOM, {"name": "v1", "config": {"user.a": "1"}})
    await app.do("POST", f"{CUSTOM}/v1/snapshots", {"name": "s0"})
    await app.do("PATCH", f"{CUSTOM}/v1", {"config": {"user.a": "2"}})
    content, links = await sent(app, "v1/snapshots/s0")
    assert (await told(links["control"], Header)).snapshot_names == ()
    await links["control"].send_bytes(protobuf.encode(Header(index_version=1)))
    index = json.loads(await links["fs"].receive_bytes(timeout=SECONDS))["config"]
    assert index["Volume"]["config"]["user.a"] == "1"
    for socket in links.values():
        await socket.close()
    assert (await app.ended(content))["status"] == "Failure"


async def test_both_pools_say_whether_files_are_compressed(app: Any) -> None:
    await app.do("PATCH", POOL, {"config": {"rsync.compression": "false"}})
    await app.do("POST", CUSTOM, {"name": "v1"})
    _, source = await sent(app, "v1")
    features = (await told(source["control"], Header)).rsync_features
    assert (features.compress, features.xattrs) == (False, True)
    _, target = await offered(app)
    await target["control"].send_bytes(offer(rsync_features=type(features)(xattrs=True, compress=True)))
    features = (await told(target["control"], Header)).rsync_features
    assert (features.compress, features.xattrs) == (False, True)
    for links in (source, target):
        for socket in links.values():
            await socket.close()


async def test_a_source_that_waits_can_be_cancelled(app: Any) -> None:
    await app.do("POST", CUSTOM, {"name": "v1"})
    _, content = await app.call("POST", f"{CUSTOM}/v1", {"name": "there", "migration": True})
    await app.do("DELETE", content["operation"])
    assert (await app.ended(content))["status"] == "Cancelled"


BAD: list[tuple[dict[str, Any], int]] = [
    ({"name": "new", "source": {"mode": "elsewhere"}}, 400),
    ({"name": "new", "source": {"mode": "pull"}}, 400),
    ({"name": "new", "source": {"mode": "pull", "operation": "http://h/1.0/operations/x", "secrets": {"control": "c"}}}, 400),
    ({"name": "../new", "source": {"mode": "push"}}, 400),
    ({"name": "v1", "source": {"mode": "push"}}, 409),
    ({"name": "new", "config": {"size": "much"}, "source": {"mode": "push"}}, 400),
    ({"name": "new", "config": {"volatile.idmap.last": "x"}, "source": {"mode": "push"}}, 400),
    ({"name": "new", "content_type": "nonsense", "source": {"mode": "push"}}, 400),
    ({"name": "v1", "content_type": "block", "source": {"mode": "push", "refresh": True}}, 400),
]


async def test_requests_that_can_be_none(app: Any) -> None:
    await app.do("POST", CUSTOM, {"name": "v1"})
    for body, status in BAD:
        found = await app.refused("POST", CUSTOM, {**body, "source": {"type": "migration", **body["source"]}})
        assert found[0] == status, (body, found)
    assert (await app.refused("POST", f"{CUSTOM}/v1/snapshots/no", {"name": "x", "migration": True}))[0] == 404
    assert [url.rpartition("/")[2] for url in await app.get(CUSTOM)] == ["v1"]


async def test_one_who_may_not_use_a_project_brings_nothing_into_it_nor_out_of_it(app: Any) -> None:
    await app.do("POST", "/1.0/projects", {"name": "p"})
    await app.do("POST", CUSTOM, {"name": "v1"})
    app.caller = Caller(Protocol.TLS, username="r", trusted=True, restricted=True, projects=frozenset({"p"}))
    pushed = await app.refused("POST", CUSTOM, {"name": "new", "source": {"type": "migration", "mode": "push"}})
    pulled = await app.refused("POST", f"{CUSTOM}/v1", {"name": "new", "migration": True})
    app.caller = None
    assert {pushed[0], pulled[0]} <= {403, 404}
