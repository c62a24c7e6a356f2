"""What a backup says of itself: LXD's text is understood, and whatever else a stranger writes is refused by name."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from atoll.domain import backup_metadata, names, yaml_text
from atoll.domain.errors import BadRequest

INSTANCE = {
    "architecture": "x86_64",
    "config": {"image.serial": "0755", "user.a": "true", "volatile.uuid": "4ead3a8f-727b-4966-9b37-06ac84f76cbe"},
    "devices": {"root": {"path": "/", "pool": "p", "type": "disk"}},
    "ephemeral": False,
    "profiles": ["default"],
    "stateful": False,
    "description": "",
    "created_at": "2026-11-22T11:15:11.822043331Z",
    "expanded_config": {},
    "expanded_devices": {},
    "name": "c1",
    "status": "Stopped",
    "status_code": 102,
    "last_used_at": "2026-11-22T11:15:12Z",
    "location": "none",
    "type": "container",
    "project": "default",
}
SNAPSHOT = {**INSTANCE, "name": "s0", "expires_at": "0001-01-01T00:00:00Z", "size": -1}
CONFIG: dict[str, Any] = {
    "container": INSTANCE,
    "snapshots": [SNAPSHOT],
    "pool": {"config": {"source": "/p"}, "description": "", "name": "p", "driver": "dir", "used_by": [], "status": "Created"},
    "profiles": [],
    "volume": {"config": {"user.foo": "1"}, "description": "", "name": "c1", "type": "container", "used_by": []},
    "volume_snapshots": [{"description": "", "expires_at": "0001-01-01T00:00:00Z", "name": "s0", "config": {"user.foo": "0"}}],
}
INDEX: dict[str, Any] = {
    "name": "c1",
    "backend": "dir",
    "pool": "p",
    "snapshots": ["s0"],
    "optimized": False,
    "optimized_header": False,
    "type": "container",
    "config": CONFIG,
}


def as_lxd(tree: Any) -> bytes:
    """As the Go library writes it: times and numbers without quotes."""
    text = yaml.safe_dump(json.loads(json.dumps(tree)), sort_keys=False)
    return text.replace("'2026-11-22T11:15:12Z'", "2026-11-22T11:15:12Z").encode()


@pytest.mark.parametrize("dump", [as_lxd, yaml_text.dump])
def test_what_a_server_writes_is_read(dump: Any) -> None:
    index = backup_metadata.parse_index(dump(INDEX))
    assert (index.name, index.pool, index.snapshots, index.optimized) == ("c1", "p", ["s0"], False)
    assert index.config is not None
    assert index.config.container.config == INSTANCE["config"]
    assert {name: volume.config for name, volume in index.config.volumes().items()} == {"s0": {"user.foo": "0"}}
    assert backup_metadata.parse_backup(dump(CONFIG)) == index.config


def nodes(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all nodes below the top."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield (*path, key)
        yield from nodes(value, (*path, key))


VALUES = [None, {}, [], "", "../x", "a\nb", 7, [None], {"a": None}, {"../x": {"type": "disk"}}, "x" * 70_000, ["s0", "s0"]]


@pytest.mark.parametrize("path", list(nodes(INDEX)), ids=lambda path: ".".join(map(str, path)))
def test_any_node_may_be_anything(path: tuple[Any, ...]) -> None:
    """It is understood or refused, and what is understood has names that can be."""
    for value in [*VALUES, "gone"]:
        tree = copy.deepcopy(INDEX)
        parent = tree
        for key in path[:-1]:
            parent = parent[key]
        if value == "gone":
            del parent[path[-1]]
        else:
            parent[path[-1]] = value
        try:
            index = backup_metadata.parse_index(yaml_text.dump(tree))
        except BadRequest:
            continue
        names.instance(index.name)
        assert index.pool in ("p", "", "7") and set(index.snapshots) <= {"s0", "7"}
        if index.config is not None:
            names.instance(index.config.container.name)
            assert all(names.profile(profile) for profile in index.config.container.profiles)
            assert all(names.device(device) for device in index.config.container.devices)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"name: c1\nname: [",
        b"\xff\xfe",
        b"a: &a [1]\nb: [" + b"*a, " * 9 + b"]\nname: c1",
        b"name: c1\nx: " + b"[" * 50 + b"]" * 50,
        b"name: c1\nx: " + b"y" * (1 << 20),
        b"name: c1\nx: [" + b"a," * 250_000 + b"]",
        b"name: !!python/object/apply:os.system [id]",
        b"name: c1\ntype: !!binary aGFsbG8=",
        b"name: -rf",
        b"name: c1\nsnapshots: [a/b]",
        b"name: c1\nsnapshots: [..]",
        b"name: c1\npool: ../x",
    ],
)
def test_other_texts(text: bytes) -> None:
    with pytest.raises(BadRequest):
        backup_metadata.parse_index(text)


def test_snapshots_that_nobody_describes() -> None:
    with pytest.raises(BadRequest, match="differ"):
        backup_metadata.parse_index(yaml_text.dump({**INDEX, "snapshots": ["s0", "s1"]}))


@pytest.mark.parametrize("path", ["", "a", "/../x", "/a/../../b", "/a//b", "/.", "/a\0", "/" + "a/" * 3000])
def test_subvolumes_that_lead_out(path: str) -> None:
    text = yaml_text.dump({"subvolumes": [{"path": "/", "snapshot": "s0"}, {"path": path, "snapshot": "s0"}]})
    with pytest.raises(BadRequest):
        backup_metadata.parse_header(text)


def test_too_many_subvolumes() -> None:
    with pytest.raises(BadRequest):
        backup_metadata.parse_header(yaml_text.dump({"subvolumes": [{"path": "/"}] * 1001}))
    assert (
        backup_metadata.parse_header(yaml_text.dump({"subvolumes": [{"path": "/rootfs/a", "readonly": True}]}))
        .subvolumes[0]
        .readonly
    )
