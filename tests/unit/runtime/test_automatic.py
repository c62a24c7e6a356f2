"""`init --auto`: what is decided from flags and facts."""

from __future__ import annotations

import pytest

from atoll.cli.errors import CommandError
from atoll.runtime.commands import init
from atoll.runtime.init import automatic
from atoll.runtime.init.automatic import Wishes
from atoll.runtime.init.facts import Facts

NEW = Facts(drivers=("overlay", "btrfs", "dir"), pools=frozenset(), networks={"eth0": ("physical", False)}, loop_size=30)


def test_a_new_host() -> None:
    result = automatic.decide(Wishes(), NEW)
    assert result["config"] == {}
    assert result["storage_pools"] == [{"name": "default", "driver": "overlay", "description": "", "config": {}}]
    assert [(network["name"], network["config"]) for network in result["networks"]] == [("atollbr0", {})]
    assert set(result["profiles"][0]["devices"]) == {"root", "eth0"}


def test_a_configured_host_is_left_alone() -> None:
    done = Facts(NEW.drivers, frozenset({"default"}), {"atollbr0": ("bridge", True)}, 30)
    result = automatic.decide(Wishes(), done)
    assert not any(result.values())


def test_a_default_profile_with_a_network_gets_no_other() -> None:
    has_nic = Facts(NEW.drivers, frozenset(), {}, 30, has_nic=True)
    assert automatic.decide(Wishes(), has_nic)["networks"] == []


def test_a_bridge_of_that_name_is_avoided() -> None:
    taken = Facts(NEW.drivers, frozenset(), {"atollbr0": ("bridge", False), "atollbr1": ("bridge", False)}, 30)
    assert automatic.decide(Wishes(), taken)["networks"][0]["name"] == "atollbr2"


@pytest.mark.parametrize(
    ("wishes", "config"),
    [
        (
            Wishes(address="127.0.0.1", port=7777, password="x"),
            {"core.https_address": "127.0.0.1:7777", "core.trust_password": "x"},
        ),
        (Wishes(address="::"), {"core.https_address": "[::]:8443"}),
    ],
)
def test_listening(wishes: Wishes, config: dict[str, str]) -> None:
    assert automatic.decide(wishes, NEW)["config"] == config


@pytest.mark.parametrize(
    ("wishes", "pool"),
    [
        (Wishes(backend="btrfs", loop=5, pool="pp"), ("pp", "btrfs", {"size": "5GB"})),
        (Wishes(backend="btrfs", device="/dev/vdb"), ("default", "btrfs", {"source": "/dev/vdb"})),
        (Wishes(backend="btrfs"), ("default", "btrfs", {})),
        (Wishes(backend="dir"), ("default", "dir", {})),
    ],
)
def test_pools(wishes: Wishes, pool: tuple[str, str, dict[str, str]]) -> None:
    made = automatic.decide(wishes, NEW)["storage_pools"][0]
    assert (made["name"], made["driver"], made["config"]) == pool


@pytest.mark.parametrize(
    ("wishes", "facts", "message"),
    [
        (Wishes(backend="foo"), NEW, "The requested backend 'foo' isn't supported"),
        (Wishes(backend="dir", loop=5), NEW, "None of --storage-pool, --storage-create-device or --storage-create-loop"),
        (Wishes(pool="x"), NEW, "None of --storage-pool"),
        (Wishes(device="/dev/x", loop=5), NEW, "Only one of"),
        (Wishes(backend="dir"), Facts(NEW.drivers, frozenset({"p"}), {}, 5), "Storage has already been configured"),
        (Wishes(), Facts((), frozenset(), {}, 5), "No storage backend works"),
    ],
)
def test_refusals(wishes: Wishes, facts: Facts, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        automatic.decide(wishes, facts)


def test_why_another_backend_was_taken() -> None:
    assert init.why_not_overlay("5.15.0-91-generic") == "overlay needs Linux 5.19 or newer, this is 5.15.0-91-generic"
    assert "file system" in init.why_not_overlay("6.1.0-18-amd64")
