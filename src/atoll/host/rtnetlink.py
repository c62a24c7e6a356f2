"""The messages of rtnetlink: requests are put together, what the kernel says of links, addresses and routes is read. Pure.

Messages come from the kernel, but are parsed as if they did not: lengths are checked, what is malformed or unknown is passed
over.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IpInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

NEWLINK, DELLINK, GETLINK, GETADDR, GETROUTE = 16, 17, 18, 22, 26
ERROR, DONE = 2, 3
REQUEST, ACK, DUMP, EXCL, CREATE = 0x1, 0x4, 0x300, 0x200, 0x400
LINK_GROUPS = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
NESTED = 0x8000

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER = 1, 3, 4, 5, 10
IFLA_LINKINFO, IFLA_IFALIAS, IFLA_STATS64, IFLA_NET_NS_FD = 18, 20, 23, 28
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_TABLE = 1, 4, 15

IFF_UP, _IFF_BROADCAST, _IFF_LOOPBACK, _IFF_POINTOPOINT = 0x1, 0x2, 0x8, 0x10
LOCAL_TABLE = 255
PROTOCOL_STATIC = 4
_UNICAST = 1

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_KIND_MASK = 0x3FFF
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_STATS = struct.Struct("=8Q")
_SCOPES = {0: "global", 200: "global", 253: "link", 254: "local"}  # 200 is a site's: LXD's word for it is global
_SIZES: dict[int, int] = {socket.AF_INET: 4, socket.AF_INET6: 16}
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


@dataclass(frozen=True, slots=True)
class Address:
    """An address of a link; `scope` is global, link or local."""

    interface: IpInterface
    scope: str

    def wire(self) -> tuple[str, str, int, str]:
        """(family, address, prefix length, scope), as states of networks and machines show it."""
        family = "inet" if self.interface.version == 4 else "inet6"
        return family, str(self.interface.ip), self.interface.network.prefixlen, self.scope


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface. `kind` is the kernel's (bridge, veth, …), empty for hardware and loopback; `master` is an index.

    `peer` is the index of the other end of a pair, in the namespace where that is; 0 if there is none.
    """

    index: int
    name: str
    flags: int
    kind: str = ""
    hwaddr: str = ""
    mtu: int = 0
    master: int = 0
    peer: int = 0
    alias: str = ""
    counters: dict[str, int] = field(default_factory=dict)
    addresses: tuple[Address, ...] = ()

    @property
    def up(self) -> bool:
        """Whether it was set up (not whether a cable is in)."""
        return bool(self.flags & IFF_UP)

    @property
    def medium(self) -> str:
        """LXD's word: loopback, point-to-point, broadcast or unknown."""
        for flag, word in (
            (_IFF_LOOPBACK, "loopback"),
            (_IFF_POINTOPOINT, "point-to-point"),
            (_IFF_BROADCAST, "broadcast"),
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


# --- writing -----------------------------------------------------------------------------------------------------------


def message(kind: int, flags: int, number: int, body: bytes) -> bytes:
    """A request with that sequence number."""
    return _HEADER.pack(_HEADER.size + len(body), kind, REQUEST | flags, number, 0) + body


def dump_request(kind: int, number: int, *, family: int = 0) -> bytes:
    """A request for all there is: GETLINK, GETADDR, GETROUTE; of a family, if one is given."""
    body = {GETLINK: _LINK, GETADDR: _ADDRESS, GETROUTE: _ROUTE}[kind].size * b"\0"
    return message(kind, DUMP, number, bytes([family]) + body[1:])


def link_header(*, flags: int = 0, change: int = 0) -> bytes:
    """The fixed part of a request about a link that is named by an attribute."""
    return _LINK.pack(0, 0, 0, flags, change)


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute; `kind | NESTED` when its value is made of attributes."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + b"\0" * (-len(value) % 4)


def text(kind: int, value: str) -> bytes:
    """An attribute of text."""
    return attribute(kind, value.encode() + b"\0")


def number(kind: int, value: int) -> bytes:
    """An attribute of a 32-bit number."""
    return attribute(kind, struct.pack("=I", value))


# --- reading -----------------------------------------------------------------------------------------------------------


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(type, sequence number, body) of each message in a datagram."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size or offset + length > len(data):
            return
        yield kind, sequence, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def error_code(body: bytes) -> int:
    """The errno that an ERROR message tells; 0 for success (an acknowledgement)."""
    return -int(struct.unpack_from("=i", body)[0]) if len(body) >= 4 else 0


def parse_links(link_bodies: Iterable[bytes], address_bodies: Iterable[bytes]) -> dict[str, Link]:
    """Links by name, each with its addresses, of the bodies that dumps of both gave."""
    addresses: dict[int, list[Address]] = {}
    for body in address_bodies:
        parsed = parse_address(body)
        if parsed is not None:
            addresses.setdefault(parsed[0], []).append(parsed[1])
    found = (parse_link(body, addresses) for body in link_bodies)
    return {link.name: link for link in found if link is not None}


def parse_link(body: bytes, addresses: dict[int, list[Address]]) -> Link | None:
    """The link that a NEWLINK body tells of; None if it is malformed or has no name."""
    if len(body) < _LINK.size:
        return None
    _, _, index, flags, _ = _LINK.unpack_from(body)
    found = _attributes(body, _LINK.size)
    name = _text(found.get(IFLA_IFNAME))
    if not name:
        return None
    stats = found.get(IFLA_STATS64, b"")
    return Link(
        index=index,
        name=name,
        flags=flags,
        kind=_text(_attributes(found.get(IFLA_LINKINFO, b""), 0).get(IFLA_INFO_KIND)),
        hwaddr=_hardware_address(found.get(IFLA_ADDRESS, b"")),
        mtu=_number(found.get(IFLA_MTU)),
        master=_number(found.get(IFLA_MASTER)),
        peer=_number(found.get(IFLA_LINK)),
        alias=_text(found.get(IFLA_IFALIAS)),
        counters=dict(zip(_COUNTERS, _STATS.unpack_from(stats), strict=True)) if len(stats) >= _STATS.size else {},
        addresses=tuple(addresses.get(index, ())),
    )


def parse_address(body: bytes) -> tuple[int, Address] | None:
    """(index of its link, address) that a NEWADDR body tells of; None for other families and malformed ones."""
    if len(body) < _ADDRESS.size:
        return None
    family, prefix, _, scope, index = _ADDRESS.unpack_from(body)
    found = _attributes(body, _ADDRESS.size)
    # of a point-to-point address the kernel gives the peer as ADDRESS and our own as LOCAL
    packed = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS) or b""
    if not _is_ip(family, packed, prefix):
        return None
    return index, Address(ipaddress.ip_interface((packed, prefix)), _SCOPES.get(scope, "global"))


def parse_route(body: bytes) -> Route | None:
    """The route that a NEWROUTE body tells of; None if it is not a unicast one, is of the table `local`, or is malformed."""
    if len(body) < _ROUTE.size:
        return None
    family, prefix, _, _, table, protocol, _, kind, _ = _ROUTE.unpack_from(body)
    found = _attributes(body, _ROUTE.size)
    table = _number(found.get(_RTA_TABLE)) or table
    packed = found.get(_RTA_DST, bytes(_SIZES.get(family, 0)))
    if kind != _UNICAST or table == LOCAL_TABLE or not _is_ip(family, packed, prefix):
        return None
    return Route(ipaddress.ip_network((packed, prefix), strict=False), _number(found.get(_RTA_OIF)), table, protocol)


def _is_ip(family: int, packed: bytes, prefix: int) -> bool:
    size = _SIZES.get(family, 0)
    return size > 0 and len(packed) == size and prefix <= size * 8


def _attributes(body: bytes, offset: int) -> dict[int, bytes]:
    found = {}
    while offset + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if length < _ATTRIBUTE.size or offset + length > len(body):
            break
        found[kind & _KIND_MASK] = body[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found


def _text(value: bytes | None) -> str:
    return (value or b"").rstrip(b"\0").decode("utf-8", "replace")


def _hardware_address(value: bytes) -> str:
    """All zeros, as loopbacks have it, is none."""
    return value.hex(":") if any(value) else ""


def _number(value: bytes | None) -> int:
    return int(struct.unpack("=I", value)[0]) if value is not None and len(value) == 4 else 0
