"""Pairs of virtual interfaces for running machines: made in one request, with the guest's end in its namespace from the start.

Blocking, for well under a millisecond, over a netlink socket of the calling thread's namespace.
"""

from __future__ import annotations

import errno
import socket

from atoll.domain.errors import HostError
from atoll.host import netlink, rtnetlink


def create(host_name: str, guest_name: str, *, hwaddr: str, netns: int, bridge: str = "", mtu: int = 0) -> None:
    """Make a pair: `host_name` here, up, on a bridge if one is named; `guest_name` in the namespace of that descriptor, down
    as yet (`set_up`), with the hardware address. HostError when the kernel refuses; then nothing was made."""
    peer = rtnetlink.link_header() + rtnetlink.text(rtnetlink.IFLA_IFNAME, guest_name)
    peer += rtnetlink.number(rtnetlink.IFLA_NET_NS_FD, netns) + _mtu(mtu)
    if hwaddr:
        peer += rtnetlink.attribute(rtnetlink.IFLA_ADDRESS, bytes.fromhex(hwaddr.replace(":", "")))
    body = rtnetlink.link_header(flags=rtnetlink.IFF_UP, change=rtnetlink.IFF_UP)
    body += rtnetlink.text(rtnetlink.IFLA_IFNAME, host_name) + _mtu(mtu)
    if bridge:
        body += rtnetlink.number(rtnetlink.IFLA_MASTER, _index(bridge))
    body += _nested(
        rtnetlink.IFLA_LINKINFO,
        rtnetlink.text(rtnetlink.IFLA_INFO_KIND, "veth")
        + _nested(rtnetlink.IFLA_INFO_DATA, _nested(rtnetlink.VETH_INFO_PEER, peer)),
    )
    try:
        with netlink.opened() as link:
            netlink.request(link, rtnetlink.NEWLINK, rtnetlink.CREATE | rtnetlink.EXCL, body)
    except OSError as error:
        raise HostError(f"Making the interfaces {host_name} and {guest_name} failed: {error.strerror or error}") from error


def set_up(link: socket.socket, name: str) -> None:
    """Bring an interface up, in the namespace that the netlink socket is of. HostError when the kernel refuses."""
    header = rtnetlink.link_header(flags=rtnetlink.IFF_UP, change=rtnetlink.IFF_UP)
    try:
        netlink.request(link, rtnetlink.NEWLINK, 0, header + rtnetlink.text(rtnetlink.IFLA_IFNAME, name))
    except OSError as error:
        raise HostError(f"Bringing the interface {name} up failed: {error.strerror or error}") from error


def delete(host_name: str) -> None:
    """Delete a pair by its end here; nothing wrong if there is none."""
    body = rtnetlink.link_header() + rtnetlink.text(rtnetlink.IFLA_IFNAME, host_name)
    try:
        with netlink.opened() as link:
            netlink.request(link, rtnetlink.DELLINK, 0, body)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise HostError(f"Deleting the interface {host_name} failed: {error.strerror or error}") from error


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise HostError(f"There is no interface {name!r} to attach to") from error


def _nested(kind: int, attributes: bytes) -> bytes:
    return rtnetlink.attribute(kind | rtnetlink.NESTED, attributes)


def _mtu(mtu: int) -> bytes:
    return rtnetlink.number(rtnetlink.IFLA_MTU, mtu) if mtu else b""
