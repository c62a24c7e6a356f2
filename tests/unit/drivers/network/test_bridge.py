"""Pure parts of the bridge driver: settings, dnsmasq lines, firewall, changes of the interface, release packets."""

from __future__ import annotations

import time
from ipaddress import ip_interface, ip_network

import pytest

from atoll.domain.errors import BadRequest, Unsupported
from atoll.drivers.network.bridge import dhcp, firewall, interface, release
from atoll.drivers.network.bridge.settings import parse
from atoll.drivers.network.contract import Reservation
from atoll.host import dnsmasq
from atoll.host.rtnetlink import Address, Link, Route

BOTH = {"ipv4.address": "10.1.2.1/24", "ipv6.address": "fd42:1::1/64"}
MAC = "00:16:3e:00:00:01"


def test_openvswitch_and_fan_are_unsupported() -> None:
    for config in ({"bridge.driver": "openvswitch"}, {"bridge.mode": "fan"}):
        with pytest.raises(Unsupported):
            parse("br0", config)


@pytest.mark.parametrize(
    "config",
    [
        {"ipv4.address": "10.1.2.1/24", "ipv4.dhcp.ranges": "10.9.9.1-10.9.9.5"},
        {"tunnel.t.local": "10.0.0.1"},
        {"tunnel.t.protocol": "gre"},
        {"tunnel.averylongname.protocol": "vxlan"},
        {"ipv6.address": "fd42::1/64", "bridge.mtu": "1000"},
        {"ipv4.address": "auto"},
        {"no.such": "key"},
    ],
)
def test_combinations_that_cannot_be(config: dict[str, str]) -> None:
    with pytest.raises(BadRequest):
        parse("br0", config)


def test_a_tunnel_lowers_the_mtu() -> None:
    tunnel = {"tunnel.t.protocol": "vxlan", "tunnel.t.local": "10.0.0.1", "tunnel.t.remote": "10.0.0.2"}
    assert parse("br0", {}).mtu == 1500
    assert parse("br0", tunnel).mtu == 1400
    assert parse("br0", {**tunnel, "bridge.mtu": "1450"}).mtu == 1450


@pytest.mark.parametrize(
    ("config", "present", "absent"),
    [
        ({}, ["dhcp-range=10.1.2.2,10.1.2.254,255.255.255.0,1h", "enable-ra", "dhcp-ignore-names"], ["dhcp-option"]),
        ({"ipv4.dhcp": "false"}, ["interface=br0"], ["dhcp-range=10."]),
        ({"ipv6.dhcp": "false"}, ["dhcp-range=::,constructor:br0,ra-only"], ["ra-stateless"]),
        ({"ipv6.dhcp.stateful": "true"}, ["dhcp-range=fd42:1::2,fd42:1::ffff:ffff:ffff:fffe,64,1h"], ["ra-names"]),
        ({"dns.mode": "dynamic"}, ["domain=lxd", "server=/lxd/"], ["dhcp-ignore-names"]),
        ({"dns.mode": "none"}, ["dhcp-ignore-names"], ["domain=", "interface-name="]),
        ({"ipv4.dhcp.gateway": "10.1.2.9"}, ["dhcp-option-force=option:router,10.1.2.9"], []),
        ({"bridge.mtu": "1400"}, ["dhcp-option-force=option:mtu,1400"], []),
        ({"dns.search": "a.test,b.test"}, ["dhcp-option-force=option:domain-search,a.test,b.test"], []),
    ],
)
def test_lines_for_dnsmasq(config: dict[str, str], present: list[str], absent: list[str]) -> None:
    lines = dhcp.options(parse("br0", {**BOTH, **config}))
    assert set(present) <= set(lines)
    assert not [line for line in lines for start in absent if line.startswith(start)]


def test_reserved_only_where_dhcp_gives_out() -> None:
    entry = Reservation("p1", "c1", "eth0", MAC, "10.1.2.7", "fd42:1::7")
    assert dhcp.hosts(parse("br0", BOTH), [entry]) == {"p1_c1.eth0": f"{MAC},10.1.2.7,c1\n"}
    stateful = parse("br0", {**BOTH, "ipv6.dhcp.stateful": "true", "dns.mode": "none"})
    assert dhcp.hosts(stateful, [entry]) == {"p1_c1.eth0": f"{MAC},10.1.2.7,[fd42:1::7]\n"}


def test_each_nic_has_a_file_of_its_own_whatever_its_name() -> None:
    settings = parse("br0", BOTH)
    found = dhcp.hosts(settings, [Reservation("default", "c1", name, MAC) for name in ("a-b", "a/b", "/../x")])
    assert set(found) == {"c1.a--b", "c1.a-b", "c1.-..-x"}


def test_leases_of_all_kinds_and_none_that_expired() -> None:
    later = int(time.time()) + 600
    given = dnsmasq.Leases(
        (
            dnsmasq.LeaseLine(later, MAC, "10.1.2.7", "c1"),
            dnsmasq.LeaseLine(later, "00:16:3e:00:00:02", "10.1.2.8", ""),
            dnsmasq.LeaseLine(1, "00:16:3e:00:00:03", "10.1.2.9", "old"),
            dnsmasq.LeaseLine(later, "", "fd42:1::8", "x", "00:03:00:01:00:16:3e:00:00:02", 5),
        )
    )
    known = [Reservation("default", "c1", "eth0", MAC, "10.1.2.7"), Reservation("default", "c2", "eth0", "00:16:3e:00:00:02")]
    found = [(entry.hostname, entry.hwaddr, entry.address, entry.kind) for entry in dhcp.leases(parse("br0", BOTH), given, known)]
    assert found == [
        ("br0.gw", "", "10.1.2.1", "gateway"),
        ("br0.gw", "", "fd42:1::1", "gateway"),
        ("c1", MAC, "10.1.2.7", "static"),
        ("c2", "00:16:3e:00:00:02", "10.1.2.8", "dynamic"),
        ("x", "00:16:3e:00:00:02", "fd42:1::8", "dynamic"),
    ]


def chains(**config: str) -> dict[str, tuple[str, ...]]:
    table = firewall.table(parse("br0", {**BOTH, **{key.replace("__", "."): text for key, text in config.items()}}))
    return {chain.name: chain.rules for chain in table.chains} if table else {}


def test_nat_excludes_its_own_subnet_and_can_have_an_address() -> None:
    found = chains(ipv4__nat="true", ipv6__nat="true", ipv6__nat__order="after", ipv4__nat__address="192.0.2.1")
    assert found["postrouting"] == ("ip saddr 10.1.2.0/24 ip daddr != 10.1.2.0/24 snat ip to 192.0.2.1",)
    assert found["postrouting_after"] == ("ip6 saddr fd42:1::/64 ip6 daddr != fd42:1::/64 masquerade",)


def test_without_firewall_only_nat_is_left() -> None:
    assert set(chains(ipv4__firewall="false", ipv6__firewall="false", ipv4__nat="true")) == {"postrouting"}
    assert chains(ipv4__firewall="false", ipv6__firewall="false") == {}
    assert firewall.table(parse("br0", {})) is None


def test_no_routing_rejects_but_for_the_bridge_itself() -> None:
    rules = [text for text in chains(ipv4__routing="false")["forward"] if "ipv4" in text]
    assert rules[0] == 'iifname "br0" oifname "br0" meta nfproto ipv4 accept'
    assert all(text.endswith("reject") for text in rules[1:])


def test_an_intact_interface_needs_no_change() -> None:
    addresses = tuple(Address(ip_interface(text), "global") for text in BOTH.values())
    link = Link(5, "br0", 1, kind="bridge", hwaddr=MAC, mtu=1500, alias=interface.ALIAS, addresses=addresses)
    strange = Route(ip_network("192.0.2.0/24"), 5, 254, 3)
    assert interface.changes(parse("br0", BOTH), MAC, {"br0": link}, [strange], None) == []
    wanted = parse("br0", {**BOTH, "ipv4.address": "10.9.9.1/24", "ipv4.routes": "198.51.100.0/24"})
    ours = Route(ip_network("203.0.113.0/24"), 5, 254, 4)
    assert interface.changes(wanted, MAC, {"br0": link}, [strange, ours], None) == [
        ("route", "del", "203.0.113.0/24", "dev", "br0", "proto", "static"),
        ("address", "add", "10.9.9.1/24", "dev", "br0", "broadcast", "10.9.9.255"),
        ("address", "del", "10.1.2.1/24", "dev", "br0"),
        ("route", "replace", "198.51.100.0/24", "dev", "br0", "proto", "static"),
    ]
    # With its last address of a family an interface loses its routes: they have to go before.
    without = parse("br0", {**BOTH, "ipv4.address": "none", "ipv4.routes": "203.0.113.0/24"})
    assert interface.changes(without, MAC, {"br0": link}, [strange, ours], None) == [
        ("route", "del", "203.0.113.0/24", "dev", "br0", "proto", "static"),
        ("address", "del", "10.1.2.1/24", "dev", "br0"),
    ]


def test_release_packets_name_client_address_and_server() -> None:
    packet = release.dhcpv4(dnsmasq.LeaseLine(0, MAC, "10.1.2.7", ""), "10.1.2.1")
    assert packet[12:16] == bytes([10, 1, 2, 7])
    assert packet[28:34] == bytes.fromhex("00163e000001")
    assert packet[236:] == bytes.fromhex("63825363" + "350107" + "36040a010201" + "ff")
    line = dnsmasq.LeaseLine(0, "", "fd42::7", "", "00:03:00:01:00:16:3e:00:00:01", 9)
    packet = release.dhcpv6(line, "00:03:00:01:00:16:3e:00:00:02")
    assert packet[0] == 8
    assert packet[4:18] == bytes.fromhex("0001000a" + "0003000100163e000001")
    assert packet[-24:-8] == bytes.fromhex("fd42" + "00" * 13 + "07")
