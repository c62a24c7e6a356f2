"""The pure decisions about instances: what profiles make of them, their limits, ids, names."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.domain import names
from atoll.domain.entities import Instance, Profile
from atoll.domain.errors import BadRequest
from atoll.services.instances import instance_types, limits, records, update
from atoll.services.instances.expand import Expanded, expand, expand_record

ROOT = {"type": "disk", "path": "/", "pool": "p"}


def profile(name: str, config: dict[str, str], devices: dict[str, dict[str, str]]) -> Profile:
    return Profile(1, "default", name, "", config, devices)


def test_later_profiles_win_and_the_own_values_most() -> None:
    first = profile("a", {"x": "1", "y": "1", "z": "1"}, {"root": ROOT, "eth0": {"type": "nic", "mtu": "1"}})
    second = profile("b", {"y": "2", "z": "2"}, {"eth0": {"type": "nic"}})
    found = expand({"z": "3"}, {"a": {"type": "none"}}, [first, second])
    assert found.config == {"x": "1", "y": "2", "z": "3"}
    assert found.devices == {"a": {"type": "none"}, "eth0": {"type": "nic"}, "root": ROOT}  # a device is replaced whole
    assert list(found.devices) == ["a", "eth0", "root"]


def test_a_profile_that_is_gone_counts_as_empty() -> None:
    record = Instance(1, "p", "c", "container", "x86_64", False, False, "", "", "", "", "", {"a": "1"}, {}, ("gone", "here"))
    assert expand_record(record, {"here": profile("here", {"b": "2"}, {})}).config == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    ("devices", "fault"),
    [
        ({}, "No root device"),
        (
            {"data": {**ROOT, "path": "/data"}, "bind": {**ROOT, "source": "/x"}, "n": {"type": "nic", "path": "/"}},
            "No root device",
        ),
        ({"a": ROOT, "b": ROOT}, "More than one root disk device: a, b"),
    ],
)
def test_there_is_one_root_disk(devices: dict[str, dict[str, str]], fault: str) -> None:
    with pytest.raises(BadRequest, match=fault):
        Expanded({}, devices).root_disk()
    assert Expanded({}, {"x": ROOT, "bind": {**ROOT, "source": "/x"}}).root_disk() == ("x", ROOT)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, {"cpu_set": "0-1", "cpu_quota_us": None, "cpu_shares": None, "memory_bytes": None, "memory_swap": True}),
        ({"limits.cpu.allowance": "50%"}, {"cpu_quota_us": None, "cpu_shares": 512}),
        ({"limits.cpu.allowance": "1%", "limits.cpu.priority": "0"}, {"cpu_shares": 2}),
        ({"limits.cpu.allowance": "25ms/100ms"}, {"cpu_quota_us": 25_000, "cpu_period_us": 100_000, "cpu_shares": None}),
        ({"limits.cpu.allowance": "5ms/10ms", "limits.cpu.priority": "8"}, {"cpu_quota_us": 5_000, "cpu_shares": 1022}),
        ({"limits.cpu.priority": "10"}, {"cpu_shares": None}),
        ({"limits.cpu.priority": "5"}, {"cpu_shares": 1019}),
        ({"limits.memory": "512MiB"}, {"memory_bytes": 512 << 20, "memory_soft": False}),
        ({"limits.memory": "50%", "limits.memory.enforce": "soft"}, {"memory_bytes": 500, "memory_soft": True}),
        ({"limits.memory.swap": "false", "limits.memory.swap.priority": "3"}, {"memory_swap": False, "memory_swap_priority": 3}),
        ({"limits.processes": "10", "limits.disk.priority": "0"}, {"processes": 10, "disk_priority": 0}),
        ({"limits.hugepages.2MB": "4MB", "limits.hugepages.1GB": ""}, {"hugepages": {"2MB": 4_000_000}}),
        ({"limits.kernel.nofile": "10:20", "limits.kernel.core": ""}, {"rlimits": {"nofile": "10:20"}}),
    ],
)
def test_limits(config: dict[str, str], expected: dict[str, Any]) -> None:
    records.check_config(config)
    found = limits.from_config(config, memory_total=1000, cpu_set="0-1")
    assert {key: getattr(found, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("c2", {"limits.cpu": "2"}),
        ("c2-m4", {"limits.cpu": "2", "limits.memory": "4096MB"}),
        ("C2.5M0.5", {"limits.cpu": "2", "limits.memory": "512MB"}),
        ("m1", {"limits.memory": "1024MB"}),
        ("c0.5", {"limits.cpu": "1", "limits.cpu.allowance": "50%"}),
        ("t2.micro", {"limits.cpu": "1", "limits.memory": "1024MB"}),
        ("AWS:t2.micro", {"limits.cpu": "1", "limits.memory": "1024MB"}),
        ("gcp:f1-micro", {"limits.cpu": "1", "limits.cpu.allowance": "20%", "limits.memory": "614MB"}),
        ("Standard_D2s_v3", {"limits.cpu": "2", "limits.memory": "8192MB"}),
    ],
)
def test_instance_types(text: str, expected: dict[str, str]) -> None:
    found = instance_types.limits_of(text)
    assert found == expected
    records.check_config(found)


UNKNOWN = [
    "",
    "-",
    "c",
    "t2.mega",
    ":t2.micro",
    "gce:t2.micro",
    "c0",
    "m0",
    "c0.001",
    "c1-",
    "c-1",
    "c٣",
    "c" + "9" * 400,
    "c1m1c1",
]


@pytest.mark.parametrize("text", UNKNOWN)
def test_unknown_instance_types(text: str) -> None:
    with pytest.raises(BadRequest):
        instance_types.limits_of(text)


def test_names_are_generated_until_one_is_free() -> None:
    assert names.instance(records.generate_name(set()))
    words = {f"{first}-{second}" for first in records._ADJECTIVES for second in records._NOUNS}
    assert all(names.instance(name) for name in words)
    free = sorted(words)[17]
    assert records.generate_name(words - {free}) == free


def test_new_instances_differ() -> None:
    first, second = records.initial_volatile(), records.initial_volatile(base_image="f" * 64)
    assert first["volatile.uuid"] != second["volatile.uuid"]
    assert "volatile.base_image" not in first and second["volatile.base_image"] == "f" * 64
    assert first["volatile.last_state.idmap"] == "[]"
    records.check_config(second)


def test_frozen_volatile_keys_stay() -> None:
    old = {"volatile.uuid": "u", "volatile.idmap.base": "1", "user.a": "1"}
    assert records.with_frozen_volatile(old, {"user.b": "2"}) == {
        "volatile.uuid": "u",
        "volatile.idmap.base": "1",
        "user.b": "2",
    }
    assert records.with_frozen_volatile(old, old) == old
    for key in ("volatile.uuid", "volatile.idmap.current", "volatile.eth0.host_name"):
        assert records.with_frozen_volatile(old, {**old, key: "other"}) == old


def test_only_limits_are_applied_live() -> None:
    def differ(old: dict[str, str], new: dict[str, str]) -> bool:
        return update._differ(old, new, update._LIVE_LIMITS)

    assert differ({}, {"limits.cpu": "1"})
    assert differ({"limits.memory.swap": "true"}, {})
    assert differ({"limits.hugepages.2MB": "1"}, {})
    assert not differ({"user.a": "1"}, {"user.a": "2", "limits.kernel.nofile": "1"})
    assert not differ({"limits.cpu": "1"}, {"limits.cpu": "1", "limits.memory": ""})


@given(st.dictionaries(st.sampled_from(["user.a", "limits.cpu"]), st.sampled_from(["", "1", "2"])))
def test_a_put_of_what_is_changes_nothing(config: dict[str, str]) -> None:
    record = Instance(1, "p", "c", "container", "x86_64", True, False, "text", "", "", "", "", config, {"root": ROOT}, ("a",))
    change = update.change_of(record)
    assert (change.description, change.architecture, change.ephemeral) == ("text", "x86_64", True)
    assert (change.config, change.devices, change.profiles) == (config, {"root": ROOT}, ("a",))
    assert not update._differ(record.config, change.config, ("",))
