"""Pure parts of the NIC drivers: what a configuration means for filters, limits and VLANs."""

from __future__ import annotations

from pathlib import Path

import pytest

from atoll.domain.errors import BadRequest, Unsupported
from atoll.drivers.device import REGISTRY, nic_bridged, nic_filters, nic_limits
from atoll.drivers.device.contract import DeviceContext, Prepared
from atoll.drivers.instance.contract import MachineId

MAC = "00:16:3e:00:00:01"


def context(**config: str) -> DeviceContext:
    return DeviceContext(MachineId("default", "c1"), "eth0", config, {}, Path("/nonexistent"))


def rules(**config: str) -> list[str]:
    wish = nic_filters.wanted({key.replace("__", "."): text for key, text in config.items()}, "veth1", MAC)
    assert wish is not None
    return list(nic_filters.table(wish).chains[0].rules)


def test_no_filter_is_asked_for() -> None:
    assert nic_filters.wanted({"security.mac_filtering": "false"}, "veth1", MAC) is None


def test_wrong_macs_are_dropped_before_anything_is_accepted() -> None:
    found = rules(
        security__ipv4_filtering="true", security__ipv6_filtering="true", ipv4__address="10.0.0.5", ipv6__address="fd42::5"
    )
    first_accept = next(number for number, text in enumerate(found) if text.endswith("accept"))
    drops = (
        f"ether saddr != {MAC} drop",
        f"arp saddr ether != {MAC} drop",
        "icmpv6 type 136 @nh,528,48 != 0x163e000001 drop",
        "udp dport 67 @th,288,48 != 0x163e000001 drop",
    )
    for drop in drops:
        assert found.index(drop) < first_accept
    assert found[-1] == "ether type != { ip, arp, ip6 } drop"


def test_sources_are_the_address_and_the_routes() -> None:
    found = rules(
        security__ipv4_filtering="true",
        security__ipv6_filtering="true",
        ipv4__address="192.0.2.2",
        ipv4__routes="198.51.100.0/24",
        ipv4__routes__external="203.0.113.0/24",
        ipv6__address="2001:db8:1::2",
        ipv6__routes="2001:db8:2::/64",
    )
    for network in ("192.0.2.2/32", "198.51.100.0/24", "203.0.113.0/24"):
        assert f"ip saddr {network} accept" in found
        assert f"arp saddr ip {network} accept" in found
    assert "icmpv6 type 136 @nh,384,128 0x20010db8000100000000000000000002 accept" in found
    assert "icmpv6 type 136 @nh,384,64 0x20010db800020000 accept" in found
    assert "icmpv6 type 134 drop" in found
    assert "ip6 saddr fe80::216:3eff:fe00:1/128 accept" in found


def test_a_family_without_addresses_is_stopped() -> None:
    found = rules(security__ipv4_filtering="true", security__ipv6_filtering="true", ipv4__address="none")
    assert {"ether type arp drop", "ether type ip drop", "ether type ip6 drop"} <= set(found)
    assert not [text for text in found if text.endswith("accept")]


def test_limits_max_goes_before_the_others() -> None:
    assert nic_limits.wanted({}) == nic_limits.Limits()
    assert nic_limits.wanted({"limits.ingress": "1Mbit", "limits.egress": "2Mbit"}) == nic_limits.Limits(1000000, 2000000)
    assert nic_limits.wanted({"limits.max": "5Mbit", "limits.egress": "2Mbit"}) == nic_limits.Limits(5000000, 5000000)
    assert nic_limits.policer("veth1", 8).chains[0].rules == ("limit rate over 1 bytes/second burst 131072 bytes drop",)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, []),
        ({"vlan": "1"}, []),
        ({"vlan": "2"}, ["vlan del dev v vid 1", "vlan add dev v vid 2 pvid untagged master"]),
        (
            {"vlan": "none", "vlan.tagged": "3,5-6"},
            ["vlan del dev v vid 1", *(f"vlan add dev v vid {number} master" for number in (3, 5, 6))],
        ),
    ],
)
def test_vlans(config: dict[str, str], expected: list[str]) -> None:
    assert [" ".join(change) for change in nic_bridged.vlan_changes(config, "v", 1)] == expected


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"vlan": "2", "vlan.tagged": "3,2"}, BadRequest),
        ({"vlan": "2", "security.ipv4_filtering": "true"}, BadRequest),
        ({"hwaddr": "01:16:3e:00:00:01"}, BadRequest),
        ({"maas.subnet.ipv4": "x"}, Unsupported),
    ],
)
def test_what_cannot_be_is_refused(config: dict[str, str], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        REGISTRY.create("nic:bridged").validate(context(**config))


def test_live_keys_are_those_of_the_table() -> None:
    live = REGISTRY.create("nic:bridged").live
    assert {"limits.max", "ipv4.routes", "security.ipv6_filtering", "ipv4.address"} <= live
    assert not live & {"hwaddr", "parent", "mtu", "vlan", "host_name"}


async def test_none_has_nothing_to_do() -> None:
    device = REGISTRY.create("none")
    device.validate(context())
    assert await device.prepare(context()) == Prepared()
    assert await device.release(context()) == {}
