"""A small parser of the kernel's link and address messages: what a machine's interfaces are, in well under a millisecond.

Only what `state` needs is understood. Messages come from the kernel, but are parsed as if they did not: lengths are checked,
what is malformed or unknown is passed over.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

RTM_NEWLINK, RTM_GETLINK, RTM_NEWADDR, RTM_GETADDR = 16, 18, 20, 22
NLMSG_ERROR, NLMSG_DONE = 2, 3
GROUPS = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBi")
_ATTRIBUTE = struct.Struct("=HH")
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK = 1, 3, 4, 5
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFF_UP, _IFF_BROADCAST, _IFF_LOOPBACK, _IFF_POINTOPOINT = 0x1, 0x2, 0x8, 0x10
_SCOPES = {0: "global", 200: "global", 253: "link", 254: "local"}


@dataclass(slots=True)
class Link:
    """An interface. `peer` is the index of the other end of a pair, in the namespace where that is; 0 if there is none."""

    index: int
    name: str
    kind: str
    up: bool
    hwaddr: str = ""
    mtu: int = 0
    peer: int = 0
    addresses: list[tuple[str, str, int, str]] = field(default_factory=list)


def dump_request(kind: int, number: int) -> bytes:
    """A request for all links or all addresses."""
    body = b"\0" * 16
    return _HEADER.pack(_HEADER.size + len(body), kind, NLM_F_REQUEST | NLM_F_DUMP, number, 0) + body


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(type, sequence number, body) of each message in a datagram."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, number, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size or offset + length > len(data):
            return
        yield kind, number, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def _attributes(body: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    while offset + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if length < _ATTRIBUTE.size or offset + length > len(body):
            return
        yield kind & 0x3FFF, body[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def parse_link(body: bytes) -> Link | None:
    """The interface that an RTM_NEWLINK body tells of."""
    if len(body) < _LINK.size:
        return None
    _, _, index, flags, _ = _LINK.unpack_from(body)
    link = Link(index, "", _kind(flags), bool(flags & _IFF_UP))
    for kind, value in _attributes(body, _LINK.size):
        if kind == _IFLA_IFNAME:
            link.name = value.rstrip(b"\0").decode(errors="replace")
        elif kind == _IFLA_ADDRESS:
            link.hwaddr = value.hex(":")
        elif kind == _IFLA_MTU and len(value) == 4:
            link.mtu = int.from_bytes(value, sys.byteorder)
        elif kind == _IFLA_LINK and len(value) == 4:
            link.peer = int.from_bytes(value, sys.byteorder)
    return link


def _kind(flags: int) -> str:
    if flags & _IFF_LOOPBACK:
        return "loopback"
    if flags & _IFF_POINTOPOINT:
        return "point-to-point"
    return "broadcast" if flags & _IFF_BROADCAST else "unknown"


def parse_address(body: bytes) -> tuple[int, tuple[str, str, int, str]] | None:
    """(interface index, (family, address, prefix length, scope)) that an RTM_NEWADDR body tells of; None for other families."""
    if len(body) < _ADDRESS.size:
        return None
    family, prefix, _, scope, index = _ADDRESS.unpack_from(body)
    word, size = {socket.AF_INET: ("inet", 4), socket.AF_INET6: ("inet6", 16)}.get(family, ("", 0))
    values = dict(_attributes(body, _ADDRESS.size))
    packed = values.get(_IFA_LOCAL) or values.get(_IFA_ADDRESS) or b""
    if not word or len(packed) != size:
        return None
    return index, (word, socket.inet_ntop(family, packed), prefix, _SCOPES.get(scope, "global"))
