"""Who listens, from the kernel's tables."""

from __future__ import annotations

import os
import socket

from atoll.host import listening


def test_ports_that_others_can_reach() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as local,
        socket.create_server(("0.0.0.0", 0)) as reachable,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as local6,
        socket.create_server(("::", 0), family=socket.AF_INET6) as reachable6,
        socket.create_connection(local.getsockname()) as link,
    ):
        found = listening.tcp_ports(os.getpid())
        wanted = {each.getsockname()[1] for each in (reachable, reachable6)}
        assert wanted <= found
        assert not found & {each.getsockname()[1] for each in (local, local6, link)}
    assert not wanted & listening.tcp_ports(os.getpid())


def test_mapped_addresses_and_the_end_of_the_listeners() -> None:
    head = "  sl  local_address rem_address st"
    rows = [
        " 0: 0000000000000000FFFF00000100007F:0050 00000000000000000000000000000000:0000 0A",
        " 1: 0000000000000000FFFF00000200000A:0051 00000000000000000000000000000000:0000 0A",
        " 2: 0000000000000000FFFF00000200000A:0052 0000000000000000FFFF00000300000A:1234 01",
        " 3: 00000000000000000000000000000000:0053 00000000000000000000000000000000:0000 0A",
    ]
    assert list(listening.parse([head, *rows])) == [0x51]


def test_a_process_that_is_gone() -> None:
    assert listening.tcp_ports(0) == frozenset()
