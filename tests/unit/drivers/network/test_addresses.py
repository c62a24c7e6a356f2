"""Choosing subnets and addresses."""

from __future__ import annotations

import random
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.domain.errors import Conflict
from atoll.drivers.network import addresses


@given(st.integers(), st.lists(st.tuples(st.integers(0, 255), st.integers(9, 30)), max_size=30))
def test_subnet_overlaps_no_route(seed: int, spans: list[tuple[int, int]]) -> None:
    taken = [ip_network((f"10.{second}.0.0", length), strict=False) for second, length in spans]
    try:
        found = addresses.free_subnet(4, [*taken, ip_network("0.0.0.0/0"), ip_network("::/0")], source=random.Random(seed))
    except Conflict:
        return
    assert found.network.prefixlen == 24
    assert found.network.subnet_of(IPv4Network("10.0.0.0/8"))
    assert found.ip == found.network[1]
    assert not any(found.network.overlaps(network) for network in taken)


def test_no_free_subnet_is_said() -> None:
    with pytest.raises(Conflict, match="IPv4"):
        addresses.free_subnet(4, [IPv4Network("10.0.0.0/8")])


def test_ipv6_subnet_is_a_unique_local_64() -> None:
    found = addresses.free_subnet(6, [IPv6Network("fe80::/64")])
    assert isinstance(found, IPv6Interface)
    assert found.network.prefixlen == 64
    assert found.network.subnet_of(IPv6Network("fd42::/16"))


def test_slaac_address_follows_from_the_mac() -> None:
    network = IPv6Network("2001:db8:1::/64")
    assert str(addresses.slaac(network, "00:16:3e:92:f3:c1")) == "2001:db8:1:0:216:3eff:fe92:f3c1"


def test_tiny_subnets_have_no_dhcp_range() -> None:
    assert addresses.dhcp_ranges(IPv4Interface("10.0.0.1/30"), []) == []
    ((first, last),) = addresses.dhcp_ranges(IPv4Interface("10.0.0.1/24"), [])
    assert (str(first), str(last)) == ("10.0.0.2", "10.0.0.254")
