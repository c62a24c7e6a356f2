"""Who is at the other end of a unix socket: the process that connected, held by a pidfd, and the pid namespaces it is in.

A process id says nothing by itself: it may belong to another process a moment later, and what a process calls itself is its
own to choose (CVE-2025-54288). So the order is always: hold the process, read what /proc says under its number, then look
whether it still lives. As long as it does, its number is nobody else's, and what was read was about it.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from atoll.domain.errors import NotFound
from atoll.host import pidfd, unix_diag

_CREDENTIALS = struct.Struct("3i")
_SO_PEERPIDFD = 77  # since Linux 6.5; Python has no name for it
_NS_GET_PARENT = 0xB702
_DEEPEST = 32
"""Pid namespaces that the kernel nests, at most."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected, by the ids of this daemon's namespaces as they were then. Owns the pidfd."""

    pid: int
    uid: int
    pidfd: int

    @property
    def is_alive(self) -> bool:
        """Whether it still runs: what was read of `pid` before is then about it."""
        return not pidfd.is_gone(self.pidfd)

    def close(self) -> None:
        """Let go of it."""
        os.close(self.pidfd)


def of(link: socket.socket) -> Peer:
    """Who connected. NotFound if it is gone, or is of no pid namespace that this daemon sees. May block for a moment.

    The kernel gives a pidfd of the very process. One older than 6.5 gives its number alone, which may be another's by now:
    then the process of that number has to be one that holds the other end.
    """
    pid, uid, _ = _CREDENTIALS.unpack(link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    if pid <= 0:
        raise NotFound("The peer is in none of this daemon's pid namespaces")
    handle = _held(link)
    found = Peer(pid, uid, pidfd.open(pid) if handle is None else handle)
    if (handle is None and not unix_diag.holds_peer(pid, link)) or not found.is_alive:
        found.close()
        raise NotFound(f"Process {pid} did not connect, or is gone")
    return found


def _held(link: socket.socket) -> int | None:
    """The pidfd of whoever connected; None from a kernel that cannot say. NotFound if that process is gone."""
    try:
        (handle,) = struct.unpack("i", link.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, 4))
    except ProcessLookupError as error:
        raise NotFound("The peer is gone") from error
    except OSError as error:
        if error.errno in _UNKNOWN_OPTION:
            return None
        raise NotFound(f"The peer cannot be held: {error.strerror or error}") from error
    return int(handle)


_UNKNOWN_OPTION = (92, 95)  # ENOPROTOOPT, EOPNOTSUPP


@contextmanager
def pid_namespaces(pid: int) -> Iterator[Iterator[int]]:
    """The inode numbers of the pid namespaces that a process is in, from its own outwards, as far as this daemon may look.

    Nothing comes for a process that is gone. No namespace ends, so that none of the numbers becomes another's, before the
    block does.
    """
    held: list[int] = []
    try:
        yield _walk(pid, held)
    finally:
        for descriptor in held:
            os.close(descriptor)


def _walk(pid: int, held: list[int]) -> Iterator[int]:
    try:
        held.append(os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC))
        for _ in range(_DEEPEST):
            yield os.fstat(held[-1]).st_ino
            held.append(fcntl.ioctl(held[-1], _NS_GET_PARENT))
    except OSError:
        return  # it is gone, or the next namespace is outside of this daemon's


def pid_namespace(pid: int) -> int:
    """The inode number of a process's own pid namespace; 0 when it is gone."""
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino
    except OSError:
        return 0
