"""The parser of link and address messages: what the kernel sends, and what nobody should."""

from __future__ import annotations

import socket
import struct

from hypothesis import given
from hypothesis import strategies as st

from atoll.host import netns, rtnetlink, veth


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body


def test_a_link() -> None:
    body = struct.pack("=BxHiII", 0, 1, 7, 0x1003, 0)
    body += attribute(3, b"eth0\0") + attribute(1, bytes.fromhex("00163e000001"))
    body += attribute(4, struct.pack("=I", 1500)) + attribute(5, struct.pack("=I", 42))
    link = rtnetlink.parse_link(body)
    assert link == rtnetlink.Link(7, "eth0", "broadcast", True, "00:16:3e:00:00:01", 1500, 42)


def test_addresses() -> None:
    four = (
        struct.pack("=BBBBi", socket.AF_INET, 24, 0, 0, 7)
        + attribute(1, bytes([10, 0, 0, 9]))
        + attribute(2, bytes([10, 0, 0, 2]))
    )
    six = struct.pack("=BBBBi", socket.AF_INET6, 64, 0, 253, 7) + attribute(1, socket.inet_pton(socket.AF_INET6, "fe80::1"))
    assert rtnetlink.parse_address(four) == (7, ("inet", "10.0.0.2", 24, "global"))
    assert rtnetlink.parse_address(six) == (7, ("inet6", "fe80::1", 64, "link"))
    assert rtnetlink.parse_address(struct.pack("=BBBBi", 99, 0, 0, 0, 7)) is None


def test_several_messages_in_a_datagram() -> None:
    data = message(16, b"abcd") + message(3, b"")
    assert [(kind, body) for kind, _, body in rtnetlink.messages(data)] == [(16, b"abcd"), (3, b"")]


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(data: bytes) -> None:
    for _, _, body in rtnetlink.messages(data):
        rtnetlink.parse_link(body)
    rtnetlink.parse_link(data)
    rtnetlink.parse_address(data)


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
    watch = netns.Watch(__import__("os").getpid())
    try:
        loopback = watch.links()["lo"]
        assert loopback.kind == "loopback"
        assert watch.links()["lo"] is loopback  # nothing changed: not read again
    finally:
        watch.close()
    assert watch.links() == {}


def test_deleting_what_is_not_there_is_nothing() -> None:
    veth.delete("atoll-none")
