"""Dumps of the kernel, as far as any host has them: the loopback."""

from __future__ import annotations

import pytest

from atoll.domain.errors import NotFound
from atoll.host import netlink, rtnetlink


def test_loopback_is_listed_with_its_address_and_counters() -> None:
    link = netlink.link("lo")
    assert (link.index, link.medium, link.kind, link.hwaddr) == (1, "loopback", "", "")
    assert link.mtu == 65536
    assert set(link.counters) == {
        "bytes_received", "bytes_sent", "packets_received", "packets_sent", "errors_received", "errors_sent",
        "packets_dropped_inbound", "packets_dropped_outbound",
    }  # fmt: skip
    if link.up:
        assert "127.0.0.1/8" in {str(entry.interface) for entry in link.addresses}


def test_what_is_not_there() -> None:
    assert not netlink.exists("nosuchlink0")
    with pytest.raises(NotFound):
        netlink.link("nosuchlink0")


def test_routes_are_networks() -> None:
    assert all(route.destination.prefixlen >= 0 and route.table != rtnetlink.LOCAL_TABLE for route in netlink.routes())


def test_a_change_of_what_is_not_there_is_refused_with_the_reason() -> None:
    body = rtnetlink.link_header() + rtnetlink.text(rtnetlink.IFLA_IFNAME, "nosuchlink0")
    with netlink.opened() as link, pytest.raises(OSError, match=r"No such device|Operation not permitted"):
        netlink.request(link, rtnetlink.DELLINK, 0, body)
