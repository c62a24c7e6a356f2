"""Columns and filters of `list`, and image names."""

from __future__ import annotations

import pytest

from atoll.cli import instance_columns, instance_filter
from atoll.cli.commands import image_source
from atoll.cli.errors import CommandError

INSTANCE = {
    "name": "web-1",
    "status": "Running",
    "type": "container",
    "ephemeral": True,
    "profiles": ["default", "web"],
    "config": {"volatile.base_image": "0123456789abcdef", "user.note": "hello"},
    "expanded_config": {"user.note": "hello", "limits.memory": "64MiB"},
    "expanded_devices": {"root": {"type": "disk", "path": "/", "pool": "fast"}, "eth0": {"parent": "br0"}},
    "snapshots": [{}, {}],
    "state": {
        "pid": 12,
        "processes": 3,
        "memory": {"usage": 655360},
        "cpu": {"usage": 2_500_000_000},
        "network": {
            "lo": {"type": "loopback", "addresses": [{"family": "inet", "address": "127.0.0.1", "scope": "local"}]},
            "eth0": {
                "type": "broadcast",
                "addresses": [
                    {"family": "inet", "address": "10.0.0.2", "scope": "global"},
                    {"family": "inet6", "address": "fe80::1", "scope": "link"},
                ],
            },
        },
    },
}


def cells(letters: str) -> list[str]:
    return [column.text(INSTANCE) for column in instance_columns.parse(letters)]


def test_columns():
    assert cells("ns46tSPbfpNmMu") == [
        "web-1", "RUNNING", "10.0.0.2 (eth0)", "", "CONTAINER (EPHEMERAL)", "2", "default\nweb", "fast", "0123456789ab",
        "12", "3", "640.00KiB", "1.0%", "2s",
    ]  # fmt: skip


def test_columns_by_key():
    columns = instance_columns.parse("n,user.note:NOTE:3,devices:eth0.parent:BRIDGE,config:user.note")
    assert [(column.header, column.text(INSTANCE)) for column in columns] == [
        ("NAME", "web-1"), ("NOTE", "hel"), ("BRIDGE", "br0"), ("user.note", "hello"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nZ", "Unknown column shorthand char 'Z' in 'nZ'"),
        ("n,", "Empty column entry (redundant, leading or trailing command) in 'n,'"),
        ("a.b:c:x", "Invalid max width (must be an integer -1 or above) 'x' in 'a.b:c:x'"),
    ],
)
def test_columns_that_are_none(text: str, message: str):
    with pytest.raises(CommandError) as caught:
        instance_columns.parse(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("web", True), ("eb", False), ("^web-1$", True), (".*-1", True), ("^w$", False), ("type=container", True),
        ("status=stopped,running", True), ("u.note=hello", True), ("user.note=h.*", True), ("user.note=ell", False),
        ("ipv4=10.0.0.0/24", True), ("ipv4=10.1.0.0/24", False), ("nosuch=1", False),
    ],
)  # fmt: skip
def test_filters(word: str, expected: bool):
    assert instance_filter.matches(INSTANCE, [word]) is expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("debian/12", True), ("ubuntu/24.04/minimal", True), ("busybox", True), ("debian", False), ("mine/12", False), ("x", False)],
)
def test_what_can_be_built(name: str, expected: bool):
    assert image_source.can_build(name) is expected
