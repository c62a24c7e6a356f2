"""What a backup says of itself has LXD's keys in LXD's order."""

from __future__ import annotations

import yaml

from atoll.domain.entities import Instance, Profile, Snapshot, StoragePool, StorageVolume
from atoll.domain.status import InstanceStatus
from atoll.services.instances import backup_index
from atoll.services.instances.core import Loaded
from atoll.services.instances.expand import Expanded

ROOT = {"root": {"type": "disk", "path": "/", "pool": "p"}}
PROFILE = Profile(1, "default", "default", "Default", {}, ROOT)
RECORD = Instance(
    1, "default", "c1", "container", "x86_64", False, False, "", "2026-01-01T00:00:00Z", "", "", "none",
    {"user.b": "0755", "user.a": "true"}, {}, ("default",),
)  # fmt: skip
SNAPSHOT = Snapshot(
    2, 1, "s0", "x86_64", False, False, "", "2026-01-02T00:00:00Z", "", "", "", ("default", "gone"), {"user.a": "1"}
)
VOLUME = StorageVolume(3, "p", "default", "c1", "container", "filesystem", "", "", "", "none")
SUBJECT = backup_index.Subject(
    Loaded(RECORD, Expanded(RECORD.config, ROOT)),
    InstanceStatus.STOPPED,
    [SNAPSHOT],
    StoragePool(1, "p", "dir", "", {"source": "/pool"}),
    VOLUME,
    {"default": PROFILE},
)


def test_the_index() -> None:
    index = yaml.safe_load(backup_index.index(SUBJECT))
    assert list(index) == ["name", "backend", "pool", "snapshots", "optimized", "optimized_header", "type", "config"]
    assert (index["name"], index["backend"], index["pool"], index["snapshots"]) == ("c1", "dir", "p", ["s0"])
    config = index["config"]
    assert list(config) == ["container", "snapshots", "pool", "profiles", "volume", "volume_snapshots"]
    assert config["container"]["config"] == {"user.a": "true", "user.b": "0755"}
    assert config["container"]["expanded_devices"] == ROOT and config["container"]["status_code"] == 102
    assert config["snapshots"][0]["expanded_devices"] == ROOT and config["snapshots"][0]["name"] == "s0"
    assert [each["name"] for each in config["profiles"]] == ["default"]
    assert config["volume_snapshots"][0]["created_at"] == "2026-01-02T00:00:00Z"


def test_values_that_look_like_others_stay_text() -> None:
    text = backup_index.instance(SUBJECT).decode()
    assert 'user.b: "0755"' in text and 'user.a: "true"' in text


def test_a_snapshot_knows_of_no_snapshots() -> None:
    tree = yaml.safe_load(backup_index.snapshot(SUBJECT))
    assert list(tree) == ["container", "pool", "profiles", "volume"]
