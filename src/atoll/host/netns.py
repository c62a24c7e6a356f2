"""What the interfaces of a machine are, without entering its network namespace for each look.

A `Watch` holds one netlink socket, opened inside the namespace once, that the kernel tells of every change of a link or an
address. A look first asks whether the kernel said anything since the last one (one system call); only then is the namespace
read anew, over the same socket. Counters come from /proc/PID/net/dev. Nothing runs between two looks, so a guest that keeps
changing its addresses costs nothing until somebody asks, and then one bounded reading.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Mapping

from atoll.host import netlink, rtnetlink, syscalls

COUNTERS = [
    "bytes_received",
    "packets_received",
    "errors_received",
    "packets_dropped_inbound",
    "fifo_in",
    "frame_in",
    "compressed_in",
    "multicast_in",
    "bytes_sent",
    "packets_sent",
    "errors_sent",
    "packets_dropped_outbound",
]
"""The columns of /proc/net/dev in order, under LXD's names where it has one."""

_WANTED = frozenset(name for name in COUNTERS if not name.endswith("_in"))
_DRAIN_MAX = 64
_RECEIVE_MAX = 64 * 1024


class Watch:
    """The links of one network namespace, by interface name. Not for use by two threads at once; `close` it."""

    def __init__(self, pid: int) -> None:
        self._socket = open_inside(pid, groups=rtnetlink.LINK_GROUPS)
        self._links: Mapping[str, rtnetlink.Link] = {}
        self._stale = True
        self._number = 0
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the socket."""
        with self._lock:
            self._socket.close()

    def links(self) -> Mapping[str, rtnetlink.Link]:
        """The interfaces as they are now, each with its addresses. Empty after `close`."""
        with self._lock:
            if self._socket.fileno() < 0:
                return {}
            if self._drain() or self._stale:
                self._read()
            return self._links

    def _drain(self) -> bool:
        """Whether anything was told since the last look. Bounded: what is left is for the next one."""
        for count in range(_DRAIN_MAX):
            try:
                self._socket.recv(_RECEIVE_MAX)
            except BlockingIOError:
                return count > 0
            except OSError:  # ENOBUFS: more happened than the socket could hold
                return True
        return True

    def _read(self) -> None:
        """Read all links and addresses. On a failure the old picture stays, marked as stale."""
        self._stale = True
        with contextlib.suppress(OSError):
            self._links = rtnetlink.parse_links(self._dump(rtnetlink.GETLINK), self._dump(rtnetlink.GETADDR))
            self._stale = False

    def _dump(self, kind: int) -> list[bytes]:
        self._number += 1
        return netlink.dump(self._socket, kind, self._number)


def open_inside(pid: int, *, groups: int = 0, protocol: int = socket.NETLINK_ROUTE) -> socket.socket:
    """A netlink socket of a process's network namespace, not blocking; this thread is back in its own before it returns."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        other = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.setns(other, syscalls.CLONE_NEWNET)
            try:
                return netlink.opened(groups=groups, protocol=protocol)
            finally:
                syscalls.setns(own, syscalls.CLONE_NEWNET)
        finally:
            os.close(other)
    finally:
        os.close(own)


def counters(pid: int) -> dict[str, dict[str, int]]:
    """Interface → LXD's counter names → figures, from /proc/PID/net/dev; empty when the process is gone."""
    try:
        with open(f"/proc/{pid}/net/dev", errors="replace") as file:  # a guest may name its interfaces by any bytes
            return parse_counters(file.read())
    except OSError:
        return {}


def parse_counters(text: str) -> dict[str, dict[str, int]]:
    """The text of a net/dev file."""
    found = {}
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        figures = zip(COUNTERS, rest.split(), strict=False)
        found[name.strip()] = {key: int(value) for key, value in figures if key in _WANTED}
    return found


def host_name(index: int) -> str:
    """The name of an interface of this thread's namespace; empty when there is none of that index."""
    try:
        return socket.if_indextoname(index) if index > 0 else ""
    except OSError:
        return ""
