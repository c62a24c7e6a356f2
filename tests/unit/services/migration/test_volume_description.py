"""What a source tells of a volume, as a target understands it; and what strangers tell."""

from __future__ import annotations

import json

import pytest

from atoll.domain.entities import StorageVolume, VolumeSnapshot
from atoll.domain.errors import BadRequest
from atoll.domain.migration_header import Snapshot
from atoll.domain.volume_backup_metadata import VolumeBackup
from atoll.services.migration import volume_description

IDMAP = '[{"Isuid":true,"Isgid":true,"Hostid":100000,"Nsid":0,"Maprange":65536}]'


def record(name: str, created_at: str = "2026-01-02T03:04:05.678Z", **config: str) -> VolumeSnapshot:
    return VolumeSnapshot(
        id=1, volume_id=1, name=name, description="d", created_at=created_at, expires_at="", config=config, phase=""
    )


def test_a_snapshot_is_understood_as_it_was_told() -> None:
    told = volume_description.snapshot(record("s0", a="1"))
    (entry,) = volume_description.entries([told], VolumeBackup())
    assert (entry.name, entry.config, entry.expires_at) == ("s0", {"a": "1"}, "")
    assert entry.created_at.startswith("2026-01-02T03:04:05")


def test_the_index_says_more() -> None:
    volume = StorageVolume(1, "p", "default", "v", "custom", "filesystem", "", "", "", "none")
    index = volume_description.parse_index(volume_description.index(volume, [record("s0", a="1")]))
    (entry,) = volume_description.entries([Snapshot(name="s0", architecture=0)], index)
    assert (entry.description, entry.created_at) == ("d", "2026-01-02T03:04:05.678Z")


def test_an_old_server_names_the_volume_too() -> None:
    data = json.dumps({"config": {"VolumeSnapshots": [{"name": "v/s0", "description": "x"}]}}).encode()
    (entry,) = volume_description.entries([Snapshot(name="s0", architecture=0)], volume_description.parse_index(data))
    assert entry.description == "x"


@pytest.mark.parametrize("name", ["", "..", "a/b", "../x", "a\nb", "a" * 300])
def test_names_of_strangers(name: str) -> None:
    with pytest.raises(BadRequest):
        volume_description.entries([Snapshot(name=name, architecture=0)], VolumeBackup())


def test_maps_of_ids() -> None:
    shifted = volume_description.shift_of({"volatile.idmap.last": IDMAP})
    assert shifted is not None
    assert [(each.inside, each.outside, each.count) for each in shifted.ranges] == [(0, 100000, 65536)]
    for plain in ({}, {"volatile.idmap.last": ""}, {"volatile.idmap.last": "[]"}):
        assert volume_description.shift_of(plain) is None
    with pytest.raises(BadRequest):
        volume_description.shift_of({"volatile.idmap.last": "0"})


def test_a_refresh_goes_by_names_but_shares_only_what_is_the_same_beyond_doubt() -> None:
    told = [volume_description.snapshot(record(name)) for name in ("a", "b")]
    present = [record("b"), record("c"), record("a", created_at="2026-01-02T03:04:06Z")]
    assert [each.name for each in volume_description.missing([*told, Snapshot(name="n", architecture=0)], present)] == ["n"]
    assert [each.name for each in volume_description.extra(told, present)] == ["c"]
    assert volume_description.same(told, present) == ["b"]
