"""Servers that answer what they are told, over one end of a socket pair."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable


class Peer:
    """A server for `connect`: `talk` gets the server's end of each connection, in a thread of its own."""

    def __init__(self, talk: Callable[[socket.socket], None]) -> None:
        self._talk = talk
        self._threads: list[threading.Thread] = []

    def connect(self) -> socket.socket:
        """What a client's `connect` returns."""
        ours, theirs = socket.socketpair()
        thread = threading.Thread(target=self._run, args=(theirs,), daemon=True)
        thread.start()
        self._threads.append(thread)
        return ours

    def _run(self, end: socket.socket) -> None:
        with end:
            self._talk(end)

    def join(self) -> None:
        """Wait for the talks to end."""
        for thread in self._threads:
            thread.join(5)


def read_request(end: socket.socket) -> tuple[str, bytes]:
    """One request: its head and its body (of a Content-Length, or chunked as it came)."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = end.recv(4096)
        if not piece:
            return "", b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    text = head.decode()
    size = int(text.lower().partition("content-length:")[2].partition("\r\n")[0] or 0)
    while len(body) < size or ("chunked" in text and not body.endswith(b"0\r\n\r\n")):
        body += end.recv(4096)
    return text, body


def reply(body: bytes, *, status: int = 200, headers: str = "") -> bytes:
    """One answer with a Content-Length."""
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body
