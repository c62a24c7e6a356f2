"""Giving leases back in the name of NICs that are gone, so that their addresses and names are free at once.

dnsmasq forgets a lease only when the client releases it. The packets are sent through the bridge to the server itself.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Iterable

from atoll.host import netlink, threads
from atoll.host.dnsmasq import LeaseLine

_BOOTREQUEST, _ETHERNET, _MAGIC = 1, 1, 0x63825363
_MESSAGE_TYPE, _SERVER_ID, _END, _DHCPRELEASE = 53, 54, 255, 7
_V6_RELEASE, _V6_CLIENT_ID, _V6_SERVER_ID, _V6_IA_NA, _V6_IA_ADDRESS, _V6_ELAPSED = 8, 1, 2, 3, 5, 8
_ALL_SERVERS = "ff02::1:2"


async def send(bridge: str, server: str, server_duid: str, lines: Iterable[LeaseLine]) -> None:
    """Release these leases of the server at IPv4 address `server` (may be empty) with that DUID (may be empty)."""
    await threads.in_thread(_send, bridge, server, server_duid, list(lines))


def _send(bridge: str, server: str, server_duid: str, lines: list[LeaseLine]) -> None:
    for line in lines:
        if line.client and server:
            _send_to(socket.AF_INET, bridge, (server, 67), dhcpv4(line, server))
        elif line.duid and server_duid:
            index = netlink.link(bridge).index
            _send_to(socket.AF_INET6, bridge, (_ALL_SERVERS, 547, 0, index), dhcpv6(line, server_duid))


def _send_to(family: socket.AddressFamily, bridge: str, target: tuple[str | int, ...], packet: bytes) -> None:
    """Bound to the bridge: the server takes packets from there only, even from its own host."""
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, bridge.encode() + b"\0")
        channel.sendto(packet, target)


def dhcpv4(line: LeaseLine, server: str) -> bytes:
    """A DHCPRELEASE."""
    hwaddr = bytes.fromhex(line.client.replace(":", ""))
    head = struct.pack("!BBBB", _BOOTREQUEST, _ETHERNET, len(hwaddr), 0) + os.urandom(4) + bytes(4)
    body = ipaddress.IPv4Address(line.address).packed + bytes(12) + hwaddr.ljust(16, b"\0") + bytes(64 + 128)
    options = bytes([_MESSAGE_TYPE, 1, _DHCPRELEASE, _SERVER_ID, 4]) + ipaddress.IPv4Address(server).packed + bytes([_END])
    return head + body + struct.pack("!I", _MAGIC) + options


def dhcpv6(line: LeaseLine, server_duid: str) -> bytes:
    """A RELEASE with one address."""
    address = _option(_V6_IA_ADDRESS, ipaddress.IPv6Address(line.address).packed + bytes(8))
    return (
        bytes([_V6_RELEASE])
        + os.urandom(3)
        + _option(_V6_CLIENT_ID, bytes.fromhex(line.duid.replace(":", "")))
        + _option(_V6_SERVER_ID, bytes.fromhex(server_duid.replace(":", "")))
        + _option(_V6_ELAPSED, bytes(2))
        + _option(_V6_IA_NA, struct.pack("!III", line.iaid, 0, 0) + address)
    )


def _option(code: int, data: bytes) -> bytes:
    return struct.pack("!HH", code, len(data)) + data
