"""Which NICs of a bridge get in each other's way."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from atoll.domain.entities import Instance
from atoll.services.instances.expand import Expanded
from atoll.services.nic_register import NicRegister, nics_of

Devices = Mapping[str, Mapping[str, str]]
NIC = {"type": "nic", "network": "br0"}
MAC, OTHER = "00:16:3e:00:00:01", "00:16:3e:00:00:02"


def record(name: str, project: str = "default") -> Instance:
    return Instance(1, project, name, "container", "x86_64", False, False, "", "", "", "", "none")


def put(register: NicRegister, name: str, devices: Devices) -> set[str]:
    return register.put(record(name), Expanded({}, devices), {})


def served(register: NicRegister) -> list[str]:
    return [entry.instance for entry in register.served("br0", named=True)]


@pytest.mark.parametrize(
    ("device", "had"),
    [
        ({}, ""),
        ({"hwaddr": MAC.upper()}, f'MAC address "{MAC}" already defined on another NIC'),
        ({"ipv4.address": "10.0.0.9"}, 'IP address "10.0.0.9" already defined on another NIC'),
        ({"ipv6.address": "fd42:0::9"}, 'IP address "fd42::9" already defined on another NIC'),
        ({"ipv4.address": "none"}, ""),
        ({"hwaddr": MAC, "vlan": "2"}, ""),
        ({"hwaddr": MAC, "network": "br1"}, ""),
        ({"hwaddr": MAC, "network": "", "nictype": "bridged", "parent": "br0"}, f'MAC address "{MAC}" already'),
        ({"vlan.tagged": "2", "hwaddr": MAC}, f'MAC address "{MAC}" already'),
    ],
)
def test_what_another_instance_has(device: Mapping[str, str], had: str) -> None:
    register = NicRegister()
    put(register, "c1", {"eth0": {**NIC, "hwaddr": MAC, "ipv4.address": "10.0.0.9", "ipv6.address": "fd42::9"}})
    put(register, "c3", {"eth0": {**NIC, "ipv4.address": "none"}})
    own = nics_of(record("c2"), Expanded({}, {"eth0": {**NIC, **device}}), {})
    found = register.conflict(("default", "c2", "eth0"), own, named=True)
    assert found.startswith(had) and bool(found) == bool(had)


def test_names_are_of_all_projects() -> None:
    register = NicRegister()
    put(register, "c1", {"eth0": NIC})
    own = nics_of(record("C1", "p"), Expanded({}, {"eth0": NIC}), {})
    key = ("p", "C1", "eth0")
    assert register.conflict(key, own, named=True) == 'Instance DNS name "c1" already used on network'
    assert register.conflict(key, own, named=False) == ""


def test_nics_of_one_instance() -> None:
    """What it is about to have counts, not what it has had."""
    register = NicRegister()
    put(register, "c1", {"eth0": NIC, "eth1": {**NIC, "network": "br1"}})
    key = ("default", "c1", "eth1")
    both = nics_of(record("c1"), Expanded({}, {"eth0": NIC, "eth1": NIC}), {})
    assert "DNS name" in register.conflict(key, both, named=True)
    assert register.conflict(key, nics_of(record("c1"), Expanded({}, {"eth1": NIC}), {}), named=True) == ""


def test_only_nics_on_bridges() -> None:
    others = {
        "a": {"type": "nic", "nictype": "macvlan", "parent": "br0"},
        "b": {"type": "nic", "nictype": "p2p"},
        "c": {"type": "disk"},
    }
    assert nics_of(record("c1"), Expanded({}, others), {}) == {}


def test_of_two_in_conflict_the_first_is_served() -> None:
    register = NicRegister()
    wanted = {"eth0": {**NIC, "ipv4.address": "10.0.0.9"}}
    assert put(register, "c1", {"eth0": {**wanted["eth0"], "hwaddr": MAC}}) == {"br0"}
    put(register, "c2", {"eth0": {**wanted["eth0"], "hwaddr": OTHER}})
    assert served(register) == ["c1"]
    assert put(register, "c1", {"eth0": {**wanted["eth0"], "hwaddr": MAC}}) == set()
    assert served(register) == ["c1"]  # it was told of again, but is as it was
    assert register.drop("default", "c1") == {"br0"}
    assert served(register) == ["c2"]


def test_who_comes_to_what_another_has_comes_second() -> None:
    register = NicRegister()
    put(register, "c1", {"eth0": {**NIC, "hwaddr": MAC}})
    put(register, "c2", {"eth0": {**NIC, "hwaddr": OTHER}})
    put(register, "c1", {"eth0": {**NIC, "hwaddr": OTHER}})
    assert served(register) == ["c2"]
    assert put(register, "c1", {"eth0": {"type": "nic", "network": "br1", "hwaddr": OTHER}}) == {"br0", "br1"}


def test_one_without_an_address_is_not_served_yet() -> None:
    register = NicRegister()
    put(register, "c1", {"eth0": NIC})
    assert served(register) == []
    register.put(record("c1"), Expanded({}, {"eth0": NIC}), {"volatile.eth0.hwaddr": MAC})
    assert served(register) == ["c1"]
    assert register.has(MAC) and not register.has(OTHER)
