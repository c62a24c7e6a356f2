"""What a source tells, as a target understands it; and what strangers tell."""

from __future__ import annotations

import json

import pytest

from atoll.domain import migration_header as wire
from atoll.domain.entities import Snapshot
from atoll.domain.errors import BadRequest
from atoll.domain.idmap import IdMap, IdRange
from atoll.domain.migration_header import Header, IdMapping
from atoll.services.migration import channels, description
from atoll.services.migration.channels import Peer

RECORD = Snapshot(
    id=1,
    instance_id=1,
    name="snap0",
    architecture="x86_64",
    ephemeral=False,
    stateful=False,
    description="",
    created_at="2026-01-02T03:04:05.678Z",
    last_used_at="",
    expires_at="",
    phase="",
    profiles=("default",),
    config={"user.a": "1", "volatile.uuid": "u"},
    devices={"root": {"type": "disk", "path": "/", "pool": "p"}},
)
TOLD = description.snapshot(RECORD)
PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
OPERATION = "https://127.0.0.1:8443/1.0/operations/00000000-0000-4000-8000-000000000000"
SECRETS = {"control": "c", "fs": "f"}


def test_a_snapshot_is_understood_as_it_was_told() -> None:
    entry = description.entry(TOLD)
    assert (entry.name, entry.architecture, entry.created_at) == ("snap0", "x86_64", "2026-01-02T03:04:05.000000Z")
    assert (entry.config, entry.devices, entry.profiles) == (RECORD.config, RECORD.devices, ["default"])
    assert entry.expires_at == ""


def test_go_tells_of_no_time_as_one_before_1970() -> None:
    told = wire.Snapshot(name="s", architecture=2, created_at=-62135596800, expires_at=-62135596800)
    assert description.entry(told).created_at == description.entry(told).expires_at == ""


def test_snapshots_are_compared_by_name_and_second() -> None:
    other = wire.Snapshot(name="snap0", architecture=2, created_at=5)
    assert description.missing([TOLD], [RECORD]) == []
    assert description.extra([TOLD], [RECORD]) == []
    assert description.missing([other], [RECORD]) == [other]
    assert description.extra([other], [RECORD]) == [RECORD]


@pytest.mark.parametrize("name", ["", "..", "a/b", "/a", "a\nb", "a" * 300, "a b"])
def test_names_of_strangers_are_validated(name: str) -> None:
    for told in (
        wire.Snapshot(name=name, architecture=2),
        wire.Snapshot(name="s", architecture=2, profiles=("a/b",)),
        wire.Snapshot(name="s", architecture=2, devices=(wire.Device("../x"),)),
    ):
        with pytest.raises(BadRequest):
            description.entry(told)


def test_impossible_architectures_and_times() -> None:
    for told in (wire.Snapshot(name="s", architecture=99), wire.Snapshot(name="s", architecture=2, created_at=1 << 62)):
        with pytest.raises(BadRequest):
            description.entry(told)


def test_an_offer_names_what_it_describes_once() -> None:
    description.check_offer(Header(snapshot_names=("snap0",), snapshots=(TOLD,)))
    for header in (
        Header(snapshot_names=("snap0",)),
        Header(snapshot_names=("snap0", "snap0"), snapshots=(TOLD, TOLD)),
        Header(idmap=(IdMapping(isuid=True, isgid=True, hostid=-1, nsid=0, maprange=5),)),
    ):
        with pytest.raises(BadRequest):
            description.check_offer(header)


def test_a_map_of_ids() -> None:
    shifted = IdMapping(isuid=True, isgid=False, hostid=100000, nsid=0, maprange=65536)
    plain = IdMapping(isuid=True, isgid=True, hostid=0, nsid=0, maprange=65536)
    assert description.idmap(Header(idmap=(shifted,))) == IdMap((IdRange(0, 100000, 65536, groups=False),))
    assert description.idmap(Header()) is None
    assert description.idmap(Header(idmap=(plain,))) is None


def test_an_index_goes_there_and_back() -> None:
    tree = {
        "container": {"name": "c1", "config": {}, "used_by": None},
        "volume": {"name": "c1", "config": {"user.foo": "bar"}, "description": "d"},
        "snapshots": [{"name": "snap0"}],
        "volume_snapshots": [{"name": "snap0", "config": {"user.foo": "old"}}],
        "profiles": [{"name": "default"}],
    }
    backup = description.parse_index(description.index(tree))
    assert backup.volume.config == {"user.foo": "bar"}
    assert backup.volumes()["snap0"].config == {"user.foo": "old"}
    assert description.parse_index(b"{}") == description.parse_index(b'{"config":null}')


def test_an_index_of_a_snapshot_has_no_instance() -> None:
    told = json.dumps({"config": {"Container": None, "Volume": {"name": "c1", "config": {"user.foo": "bar"}}}}).encode()
    assert description.parse_index(told).volume.config == {"user.foo": "bar"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        b'{"config":7}',
        b"[" * 100_000,
        json.dumps({"config": {"Snapshots": [{"name": "s", "created_at": "soon"}]}}).encode(),
        json.dumps({"config": {"Snapshots": [{"name": "s"}, {"name": "s"}]}}).encode(),
        json.dumps({"config": {"Container": {"name": "c"}, "Snapshots": [{"name": "a/b"}]}}).encode(),
        json.dumps({"config": {"Volume": {"config": {"a": ["b"]}}}}).encode(),
    ],
)
def test_a_malformed_index_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequest):
        description.parse_index(data)


def test_where_a_peer_may_be() -> None:
    Peer(OPERATION, PEM, SECRETS).check()
    assert Peer(OPERATION, "", {**SECRETS, "fs": "a&b"}).url(channels.FILES).endswith("/websocket?secret=a%26b")
    for bad in (
        Peer(OPERATION.replace("https", "http"), PEM, SECRETS),
        Peer("https:///1.0/operations/00000000-0000-4000-8000-000000000000", PEM, SECRETS),
        Peer("https://h/1.0/instances", PEM, SECRETS),
        Peer(OPERATION + "/../x", PEM, SECRETS),
        Peer(OPERATION + "\n", PEM, SECRETS),
        Peer(OPERATION, "no certificate", SECRETS),
        Peer(OPERATION, PEM, {"control": "c"}),
    ):
        with pytest.raises(BadRequest):
            bad.check()
