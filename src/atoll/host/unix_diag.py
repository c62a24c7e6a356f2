"""Which process holds the other end of a unix socket, as the kernel's socket diagnostics tell it: for kernels that cannot give
a pidfd of the peer."""

from __future__ import annotations

import itertools
import os
import socket
import struct

from atoll.host import netlink, netns

_SOCK_DIAG = 4
_BY_FAMILY = 20
_REQUEST = struct.Struct("=BBHIIIII")  # family, protocol, padding, states, inode, what to show, cookie (2)
_ANSWER = struct.Struct("=BBBBIII")
_ATTRIBUTE = struct.Struct("=HH")
_ANY = 0xFFFFFFFF
_SHOW_PEER = 4
_PEER = 2
_MOST_DESCRIPTORS = 4096


def holds_peer(pid: int, link: socket.socket) -> bool:
    """Whether a process has the other end of an accepted connection among its descriptors. Blocks.

    The connection's network namespace is that of whoever connected, so it is looked up in the process's: False for one that has
    gone to another since, and for one with thousands of descriptors.
    """
    try:
        inode = _peer_inode(pid, os.fstat(link.fileno()).st_ino)
        wanted = f"socket:[{inode}]"
        with os.scandir(f"/proc/{pid}/fd") as descriptors:
            return any(os.readlink(each.path) == wanted for each in itertools.islice(descriptors, _MOST_DESCRIPTORS))
    except OSError:
        return False


def _peer_inode(pid: int, inode: int) -> int:
    """The inode number of the socket connected to that one. OSError if it is not in the process's network namespace."""
    body = _REQUEST.pack(socket.AF_UNIX, 0, 0, _ANY, inode, _SHOW_PEER, _ANY, _ANY)
    with netns.open_inside(pid, protocol=_SOCK_DIAG) as diagnostics:
        answer = netlink.ask(diagnostics, _BY_FAMILY, body)
    return _parse_peer(answer)


def _parse_peer(answer: bytes) -> int:
    offset = _ANSWER.size
    while offset + _ATTRIBUTE.size <= len(answer):
        length, kind = _ATTRIBUTE.unpack_from(answer, offset)
        if kind == _PEER:
            (found,) = struct.unpack_from("=I", answer, offset + _ATTRIBUTE.size)
            return int(found)
        offset += max(_ATTRIBUTE.size, (length + 3) & ~3)
    raise OSError("the socket has no peer")
