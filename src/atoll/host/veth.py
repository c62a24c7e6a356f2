"""Pairs of virtual interfaces for running machines: made in one request, with the guest's end in its namespace from the start.

Blocking, for well under a millisecond, over a netlink socket of the calling thread's namespace.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

from atoll.domain.errors import HostError
from atoll.host import rtnetlink

_RTM_NEWLINK, _RTM_DELLINK = 16, 17
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_EXCL, _NLM_F_CREATE = 0x1, 0x4, 0x200, 0x400
_IFF_UP = 1
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 1, 3, 4, 10, 18, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_NESTED = 0x8000
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ANSWER_MAX = 8192
_SECONDS = 5.0


def create(host_name: str, guest_name: str, *, hwaddr: str, netns: int, bridge: str = "", mtu: int = 0) -> None:
    """Make a pair: `host_name` here, up, on a bridge if one is named; `guest_name` in the namespace of that descriptor, down
    as yet (`set_up`), with the hardware address. HostError when the kernel refuses; then nothing was made."""
    peer = _LINK.pack(0, 0, 0, 0, 0)
    peer += _text(_IFLA_IFNAME, guest_name) + _number(_IFLA_NET_NS_FD, netns)
    if hwaddr:
        peer += _attribute(_IFLA_ADDRESS, bytes.fromhex(hwaddr.replace(":", "")))
    data = _attribute(_IFLA_INFO_DATA | _NESTED, _attribute(_VETH_INFO_PEER | _NESTED, peer + _mtu(mtu)))
    body = _LINK.pack(0, 0, 0, _IFF_UP, _IFF_UP) + _text(_IFLA_IFNAME, host_name) + _mtu(mtu)
    if bridge:
        body += _number(_IFLA_MASTER, _index(bridge))
    body += _attribute(_IFLA_LINKINFO | _NESTED, _text(_IFLA_INFO_KIND, "veth") + data)
    with _open() as link:
        code = _request(link, _RTM_NEWLINK, _NLM_F_CREATE | _NLM_F_EXCL, body)
    if code:
        raise HostError(f"Making the interfaces {host_name} and {guest_name} failed: {os.strerror(code)}")


def set_up(link: socket.socket, name: str) -> None:
    """Bring an interface up, in the namespace that the netlink socket is of. HostError when the kernel refuses."""
    code = _request(link, _RTM_NEWLINK, 0, _LINK.pack(0, 0, 0, _IFF_UP, _IFF_UP) + _text(_IFLA_IFNAME, name))
    if code:
        raise HostError(f"Bringing the interface {name} up failed: {os.strerror(code)}")


def delete(host_name: str) -> None:
    """Delete a pair by its end here; nothing wrong if there is none."""
    with _open() as link:
        code = _request(link, _RTM_DELLINK, 0, _LINK.pack(0, 0, 0, 0, 0) + _text(_IFLA_IFNAME, host_name))
    if code not in (0, errno.ENODEV):
        raise HostError(f"Deleting the interface {host_name} failed: {os.strerror(code)}")


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise HostError(f"There is no interface {name!r} to attach to") from error


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _mtu(mtu: int) -> bytes:
    return _number(_IFLA_MTU, mtu) if mtu else b""


def _open() -> socket.socket:
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    link.bind((0, 0))
    return link


def _request(link: socket.socket, kind: int, flags: int, body: bytes) -> int:
    """Send one request and return the errno that it was answered with; 0 for success."""
    link.settimeout(_SECONDS)
    header = _HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST | _NLM_F_ACK | flags, 1, 0)
    link.sendto(header + body, (0, 0))
    while True:
        data, sender = link.recvfrom(_ANSWER_MAX)
        for what, _, answer in rtnetlink.messages(data) if sender[0] == 0 else ():
            if what == rtnetlink.NLMSG_ERROR:
                code: int = struct.unpack_from("=i", answer)[0]
                return -code
