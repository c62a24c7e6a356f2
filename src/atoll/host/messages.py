"""JSON objects with file descriptors beside them, over SOCK_SEQPACKET sockets: how the daemon and its workers speak."""

from __future__ import annotations

import array
import json
import socket
from typing import Any

MESSAGE_MAX = 128 * 1024
FDS_MAX = 8

loads = json.loads


def receive(link: socket.socket) -> tuple[bytes, list[int]]:
    """One message and its descriptors, close-on-exec; b"" at the end of the connection."""
    room = socket.CMSG_SPACE(FDS_MAX * array.array("i").itemsize)
    data, ancillary, _, _ = link.recvmsg(MESSAGE_MAX, room, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return data, list(fds)


def send(link: socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
    """Send one message with descriptors."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    link.sendmsg([json.dumps(message).encode()], ancillary, socket.MSG_NOSIGNAL)
