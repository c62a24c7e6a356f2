"""Talking with the kernel over rtnetlink: what the links, addresses and routes of this network namespace are; one-off requests.

The messages themselves are `rtnetlink`'s; why there is no library for this, docs/decisions/0004-rtnetlink-by-hand.md says.
Changes that are rare go through `atoll.host.iproute`.

The functions block for the time of a dump (10 ms for thousands of links): the event loop calls them by `threads.in_thread`.
"""

from __future__ import annotations

import os
import select
import socket

from atoll.domain.errors import HostError, NotFound
from atoll.host import rtnetlink
from atoll.host.rtnetlink import Link, Route

_RECEIVE_MAX = 1 << 16
_SECONDS = 5.0


def links() -> dict[str, Link]:
    """All links of this network namespace by name, with their addresses."""
    try:
        with opened() as link:
            return rtnetlink.parse_links(dump(link, rtnetlink.GETLINK, 1), dump(link, rtnetlink.GETADDR, 2))
    except OSError as error:
        raise HostError(f"The kernel refused to list the network: {error.strerror or error}") from error


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
    try:
        with opened() as link:
            bodies = dump(link, rtnetlink.GETROUTE, 1, family=socket.AF_INET)
            bodies += dump(link, rtnetlink.GETROUTE, 2, family=socket.AF_INET6)
    except OSError as error:
        raise HostError(f"The kernel refused to list the routes: {error.strerror or error}") from error
    return [route for body in bodies if (route := rtnetlink.parse_route(body)) is not None]


def opened(*, groups: int = 0, protocol: int = socket.NETLINK_ROUTE) -> socket.socket:
    """A socket, not blocking, of the calling thread's network namespace that hears of those groups too. OSError."""
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, protocol)
    try:
        link.bind((0, groups))
    except OSError:
        link.close()
        raise
    return link


def dump(link: socket.socket, kind: int, number: int, *, family: int = 0) -> list[bytes]:
    """The bodies of the answer to one dump request, which has that sequence number on its socket.

    OSError with the kernel's reason, TimeoutError when it does not answer.
    """
    link.sendto(rtnetlink.dump_request(kind, number, family=family), (0, 0))
    bodies: list[bytes] = []
    while True:
        for what, body in _answers(link, number):
            if what == rtnetlink.DONE:
                return bodies
            if what == rtnetlink.ERROR:
                _raise(rtnetlink.error_code(body))
            bodies.append(body)


def request(link: socket.socket, kind: int, flags: int, body: bytes) -> None:
    """Ask for one change and wait for its acknowledgement. OSError with the kernel's reason."""
    link.sendto(rtnetlink.message(kind, rtnetlink.ACK | flags, 1, body), (0, 0))
    while True:
        for what, answer in _answers(link, 1):
            if what == rtnetlink.ERROR:
                _raise(rtnetlink.error_code(answer))
                return


def ask(link: socket.socket, kind: int, body: bytes) -> bytes:
    """The body of the one message that answers a request. OSError with the kernel's reason."""
    link.sendto(rtnetlink.message(kind, 0, 1, body), (0, 0))
    while True:
        for what, answer in _answers(link, 1):
            if what == rtnetlink.ERROR:
                _raise(rtnetlink.error_code(answer))
            return answer


def _answers(link: socket.socket, number: int) -> list[tuple[int, bytes]]:
    """(type, body) of the messages of the next datagram that answer that request. Only the kernel is listened to: port 0."""
    poller = select.poll()
    poller.register(link, select.POLLIN)
    if not poller.poll(_SECONDS * 1000):
        raise TimeoutError("the kernel does not answer")
    data, sender = link.recvfrom(_RECEIVE_MAX)
    if sender[0] != 0:
        return []
    return [(what, body) for what, sequence, body in rtnetlink.messages(data) if sequence == number]


def _raise(code: int) -> None:
    """OSError of that errno, unless it is 0."""
    if code:
        raise OSError(code, os.strerror(code))
