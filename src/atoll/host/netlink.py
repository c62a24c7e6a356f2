"""What the kernel says of links, addresses and routes: rtnetlink dumps, read with the standard library alone.

A library for this costs 13 MB of memory and 100 ms of import on its first use, an `ip -json` 2 ms and a fork each time; a dump
read here costs about 0.1 ms and nothing to keep. Changes are rare and go through `atoll.host.iproute`.

The functions block for the time of a dump (10 ms for thousands of links): the event loop calls them by `threads.in_thread`.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from atoll.domain.errors import HostError, NotFound

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_GETLINK, _GETADDR, _GETROUTE = 18, 22, 26
_ERROR, _DONE = 2, 3
_REQUEST, _DUMP = 0x1, 0x300
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_NESTED_MASK = 0x3FFF
_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")
_BUFFER = 1 << 18

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER = 1, 3, 4, 10
_IFLA_TXQLEN, _IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_STATS64 = 13, 18, 20, 23
_IFLA_INFO_KIND = 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_TABLE = 1, 4, 15
_FLAG_UP, _FLAG_BROADCAST, _FLAG_LOOPBACK, _FLAG_POINT_TO_POINT = 0x1, 0x2, 0x8, 0x10
_SCOPES = {0: "global", 200: "site", 253: "link", 254: "local"}
_COUNTERS = (
    "packets_received",
    "packets_sent",
    "bytes_received",
    "bytes_sent",
    "errors_received",
    "errors_sent",
    "packets_dropped_inbound",
    "packets_dropped_outbound",
)
_STATS = struct.Struct("=8Q")
LOCAL_TABLE = 255
PROTOCOL_BOOT, PROTOCOL_STATIC = 3, 4
_UNICAST = 1


@dataclass(frozen=True, slots=True)
class Address:
    """An address of a link; `scope` is global, link, local or site."""

    interface: ipaddress.IPv4Interface | ipaddress.IPv6Interface
    scope: str


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface. `kind` is the kernel's (bridge, veth, …), empty for hardware and loopback; `master` is an index."""

    index: int
    name: str
    flags: int
    kind: str = ""
    hwaddr: str = ""
    mtu: int = 0
    master: int = 0
    queue_length: int = 0
    alias: str = ""
    counters: dict[str, int] = field(default_factory=dict)
    addresses: tuple[Address, ...] = ()

    @property
    def up(self) -> bool:
        """Whether it was set up (not whether a cable is in)."""
        return bool(self.flags & _FLAG_UP)

    @property
    def medium(self) -> str:
        """LXD's word: loopback, point-to-point, broadcast or unknown."""
        for flag, word in (
            (_FLAG_LOOPBACK, "loopback"),
            (_FLAG_POINT_TO_POINT, "point-to-point"),
            (_FLAG_BROADCAST, "broadcast"),
        ):
            if self.flags & flag:
                return word
        return "unknown"


@dataclass(frozen=True, slots=True)
class Route:
    """A unicast route to `destination` out of the link with index `link` (0: none)."""

    destination: IpNetwork
    link: int
    table: int
    protocol: int


def links() -> dict[str, Link]:
    """All links of this network namespace by name, with their addresses."""
    addresses = _addresses()
    found = (_link(payload, addresses) for payload in _dump(_GETLINK, _IFINFO.pack(0, 0, 0, 0, 0)))
    return {link.name: link for link in found}


def link(name: str) -> Link:
    """One link. NotFound if there is none of that name."""
    try:
        return links()[name]
    except KeyError:
        raise NotFound(f"Network interface {name!r} not found") from None


def exists(name: str) -> bool:
    """Whether there is a link of that name; without a dump."""
    try:
        return socket.if_nametoindex(name) > 0
    except OSError:
        return False


def routes() -> list[Route]:
    """The unicast routes of all tables but `local`, IPv4 and IPv6."""
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        for payload in _dump(_GETROUTE, _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)):
            route = _route(payload)
            if route is not None:
                found.append(route)
    return found


def _dump(kind: int, body: bytes) -> Iterator[bytes]:
    """Send one dump request and yield the payload of each answer."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as netlink:
        netlink.bind((0, 0))
        netlink.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | _DUMP, 1, 0) + body)
        while True:
            data = netlink.recv(_BUFFER)
            offset = 0
            while offset + _HEADER.size <= len(data):
                length, answer, _, _, _ = _HEADER.unpack_from(data, offset)
                payload = data[offset + _HEADER.size : offset + length]
                if answer == _DONE:
                    return
                if answer == _ERROR:
                    _raise(payload)
                yield payload
                offset += (length + 3) & ~3


def _raise(payload: bytes) -> None:
    code = -int.from_bytes(payload[:4], "little", signed=True)
    raise HostError(f"The kernel refused to list the network: {os.strerror(code or errno.EIO)}")


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _NESTED_MASK] = data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode("utf-8", "replace")


def _number(data: bytes | None) -> int:
    return struct.unpack("=I", data)[0] if data else 0


def _link(payload: bytes, addresses: dict[int, list[Address]]) -> Link:
    _, _, index, flags, _ = _IFINFO.unpack_from(payload)
    found = _attributes(payload[_IFINFO.size :])
    info = _attributes(found.get(_IFLA_LINKINFO, b""))
    stats = found.get(_IFLA_STATS64, b"")
    return Link(
        index=index,
        name=_text(found[_IFLA_IFNAME]),
        flags=flags,
        kind=_text(info.get(_IFLA_INFO_KIND, b"")),
        hwaddr=found.get(_IFLA_ADDRESS, b"").hex(":"),
        mtu=_number(found.get(_IFLA_MTU)),
        master=_number(found.get(_IFLA_MASTER)),
        queue_length=_number(found.get(_IFLA_TXQLEN)),
        alias=_text(found.get(_IFLA_IFALIAS, b"")),
        counters=dict(zip(_COUNTERS, _STATS.unpack_from(stats), strict=True)) if len(stats) >= _STATS.size else {},
        addresses=tuple(addresses.get(index, ())),
    )


def _addresses() -> dict[int, list[Address]]:
    found: dict[int, list[Address]] = {}
    for payload in _dump(_GETADDR, _IFADDR.pack(0, 0, 0, 0, 0)):
        _, length, _, scope, index = _IFADDR.unpack_from(payload)
        attributes = _attributes(payload[_IFADDR.size :])
        # of a point-to-point address the kernel gives the peer as ADDRESS and our own as LOCAL
        raw = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
        if raw is not None:
            interface = ipaddress.ip_interface((raw, length))
            found.setdefault(index, []).append(Address(interface, _SCOPES.get(scope, "global")))
    return found


def _route(payload: bytes) -> Route | None:
    family, length, _, _, table, protocol, _, kind, _ = _RTMSG.unpack_from(payload)
    found = _attributes(payload[_RTMSG.size :])
    table = _number(found.get(_RTA_TABLE)) or table
    if kind != _UNICAST or table == LOCAL_TABLE:
        return None
    raw = found.get(_RTA_DST, bytes(4 if family == socket.AF_INET else 16))
    return Route(ipaddress.ip_network((raw, length), strict=False), _number(found.get(_RTA_OIF)), table, protocol)
