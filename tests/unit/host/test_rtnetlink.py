"""The parser of link and address messages: what the kernel sends, and what nobody should."""

from __future__ import annotations

import os
import socket
import struct
from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st

from atoll.host import netns, rtnetlink, veth


def test_a_link() -> None:
    body = struct.pack("=BxHiII", 0, 1, 7, 0x1003, 0)
    body += rtnetlink.text(3, "eth0") + rtnetlink.attribute(1, bytes.fromhex("00163e000001"))
    body += rtnetlink.number(4, 1500) + rtnetlink.number(5, 42)
    link = rtnetlink.parse_link(body, {})
    assert link == rtnetlink.Link(7, "eth0", 0x1003, hwaddr="00:16:3e:00:00:01", mtu=1500, peer=42)
    assert (link.up, link.medium) == (True, "broadcast")


def test_addresses() -> None:
    four = struct.pack("=BBBBI", socket.AF_INET, 24, 0, 0, 7)
    four += rtnetlink.attribute(1, bytes([10, 0, 0, 9])) + rtnetlink.attribute(2, bytes([10, 0, 0, 2]))
    six = struct.pack("=BBBBI", socket.AF_INET6, 64, 0, 253, 7)
    six += rtnetlink.attribute(1, socket.inet_pton(socket.AF_INET6, "fe80::1"))
    found = [rtnetlink.parse_address(body) for body in (four, six)]
    assert [(entry[0], entry[1].wire()) for entry in found if entry] == [
        (7, ("inet", "10.0.0.2", 24, "global")),
        (7, ("inet6", "fe80::1", 64, "link")),
    ]
    assert rtnetlink.parse_address(struct.pack("=BBBBI", 99, 0, 0, 0, 7)) is None
    assert rtnetlink.parse_address(struct.pack("=BBBBI", socket.AF_INET, 33, 0, 0, 7) + four[8:]) is None


def test_links_get_their_addresses() -> None:
    link = struct.pack("=BxHiII", 0, 1, 7, 0, 0) + rtnetlink.text(3, "eth0")
    address = struct.pack("=BBBBI", socket.AF_INET, 8, 0, 0, 7) + rtnetlink.attribute(1, bytes([10, 0, 0, 9]))
    elsewhere = struct.pack("=BBBBI", socket.AF_INET, 8, 0, 0, 8) + rtnetlink.attribute(1, bytes([10, 0, 0, 8]))
    found = rtnetlink.parse_links([link, b"", link[:16]], [address, elsewhere, b""])
    assert {name: [str(each.interface) for each in link.addresses] for name, link in found.items()} == {"eth0": ["10.0.0.9/8"]}


def test_routes() -> None:
    default = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 254, 3, 0, 1, 0) + rtnetlink.number(4, 2)
    assert rtnetlink.parse_route(default) == rtnetlink.Route(ip_network("0.0.0.0/0"), 2, 254, 3)
    local = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, rtnetlink.LOCAL_TABLE, 3, 0, 1, 0)
    blackhole = struct.pack("=BBBBBBBBI", socket.AF_INET6, 0, 0, 0, 254, 3, 0, 6, 0)
    assert rtnetlink.parse_route(local) is rtnetlink.parse_route(blackhole) is None


def test_several_messages_in_a_datagram() -> None:
    data = rtnetlink.message(16, 0, 5, b"abcd") + rtnetlink.message(3, 0, 5, b"")
    assert list(rtnetlink.messages(data)) == [(16, 5, b"abcd"), (3, 5, b"")]


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(data: bytes) -> None:
    for _, _, body in rtnetlink.messages(data):
        rtnetlink.parse_link(body, {})
    rtnetlink.parse_link(data, {})
    rtnetlink.parse_address(data)
    rtnetlink.parse_route(data)
    rtnetlink.error_code(data)


@given(st.binary(max_size=80), st.sampled_from([socket.AF_INET, socket.AF_INET6]))
def test_attributes_of_any_bytes_are_survived(data: bytes, family: int) -> None:
    rtnetlink.parse_link(struct.pack("=BxHiII", 0, 1, 7, 0, 0) + data, {})
    rtnetlink.parse_address(struct.pack("=BBBBI", family, 24, 0, 0, 7) + data)
    rtnetlink.parse_route(struct.pack("=BBBBBBBBI", family, 24, 0, 0, 254, 3, 0, 1, 0) + data)


def test_counters() -> None:
    text = "head\nhead\n  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"
    found = netns.parse_counters(text)["eth0"]
    assert found["bytes_received"] == 1
    assert found["packets_sent"] == 10
    assert found["packets_dropped_outbound"] == 12
    assert set(found) == {
        *(f"{what}_{way}" for what in ("bytes", "packets", "errors") for way in ("received", "sent")),
        "packets_dropped_inbound",
        "packets_dropped_outbound",
    }


def test_this_namespace_can_be_read() -> None:
    watch = netns.Watch(os.getpid())
    try:
        loopback = watch.links()["lo"]
        assert loopback.medium == "loopback"
        assert watch.links()["lo"] is loopback  # nothing changed: not read again
    finally:
        watch.close()
    assert watch.links() == {}


def test_deleting_what_is_not_there_is_nothing() -> None:
    veth.delete("atoll-none")
