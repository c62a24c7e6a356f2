"""A minimal RFC 6455 client, made for select loops: nothing here waits except `send_*` on a full pipe."""

from __future__ import annotations

import binascii
import posix

from atoll.client.errors import ProtocolError
from atoll.client.http1 import RECEIVE, Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from atoll.client.http1 import Stream

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA


def _accept(key: bytes) -> str:
    from _sha1 import sha1  # type: ignore[import-not-found]  # hashlib costs 11 ms to import

    return binascii.b2a_base64(sha1(key + _GUID).digest(), newline=False).decode()


def mask(payload: bytes, key: bytes) -> bytes:
    """XOR `payload` with the four bytes of `key`, repeated."""
    size = len(payload)
    repeated = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(repeated, "little")).to_bytes(size, "little")


class WebSocket:
    """One websocket. `open` sends the upgrade, and the answer is read by the first `receive`: any number of sockets can be
    opened before the first answer is waited for. Nothing may be sent before `opened`: servers take it for an attack."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._send_all: Callable[[bytes], object] = connection.stream.sendall
        self._key = binascii.b2a_base64(posix.urandom(16), newline=False)
        self.opened = False
        self._buffer = b""
        self._fragments: list[bytes] = []
        self._kind = BINARY
        self.closed = False

    def open(self, target: str) -> None:
        """Ask for the upgrade."""
        self._connection.send(
            "GET",
            target,
            {
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": self._key.decode(),
            },
        )

    def fileno(self) -> int:
        """For select and poll."""
        return self._connection.fileno()

    def close(self) -> None:
        """Say goodbye and close, once."""
        if not self.closed:
            self.closed = True
            try:
                self._send(CLOSE, b"\x03\xe8")
            except OSError:
                pass  # the peer has gone already, which is what was asked for
        self._connection.close()

    def finish_opening(self) -> None:
        """Read the answer to the upgrade; ProtocolError when the server refuses it."""
        self.opened = True
        status, headers = self._connection.receive_head()
        if status != 101 or headers.get("sec-websocket-accept") != _accept(self._key):
            raise ProtocolError(f"The server refused a websocket (HTTP status {status})")
        self._buffer = self._connection.take_buffered()

    def divert(self, send_all: Callable[[bytes], object]) -> Stream:
        """Give what is to be sent to that from now on, who passes it on to the stream."""
        self._send_all = send_all
        return self._connection.stream

    def send_binary(self, payload: bytes) -> None:
        """Send one binary message."""
        self._send(BINARY, payload)

    def send_text(self, text: str) -> None:
        """Send one text message."""
        self._send(TEXT, text.encode())

    def _send(self, kind: int, payload: bytes) -> None:
        size = len(payload)
        if size < 126:
            head = bytes((0x80 | kind, 0x80 | size))
        elif size < 65536:
            head = bytes((0x80 | kind, 0x80 | 126)) + size.to_bytes(2, "big")
        else:
            head = bytes((0x80 | kind, 0x80 | 127)) + size.to_bytes(8, "big")
        key = posix.urandom(4)
        self._send_all(head + key + mask(payload, key))

    def receive(self) -> Iterator[tuple[int, bytes]]:
        """The messages of one read, as (TEXT or BINARY, payload); call it when `fileno()` is readable.

        Pings are answered. After the peer's end `closed` is set.
        """
        if not self.opened:
            self.finish_opening()
        else:
            try:
                data = self._connection.stream.recv(RECEIVE)
            except ConnectionResetError:
                data = b""
            if not data:
                self.closed = True
            self._buffer += data
        while (frame := self._next_frame()) is not None:
            final, kind, payload = frame
            if kind == PING:
                self._answer_ping(payload)
            elif kind == CLOSE:
                self.closed = True
                return
            elif kind != PONG:
                self._kind = kind or self._kind
                self._fragments.append(payload)
                if final:
                    message, self._fragments = b"".join(self._fragments), []
                    yield self._kind, message

    def _answer_ping(self, payload: bytes) -> None:
        try:
            self._send(PONG, payload)
        except OSError:
            pass  # the peer left after its ping; what it said before is still to be read

    def _next_frame(self) -> tuple[bool, int, bytes] | None:
        """Cut one whole frame off the buffer: final, opcode, payload."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        size, start = buffer[1] & 0x7F, 2
        if size >= 126:
            start = 4 if size == 126 else 10
            if len(buffer) < start:
                return None
            size = int.from_bytes(buffer[2:start], "big")
        if buffer[1] & 0x80:
            raise ProtocolError("The server masked a websocket frame")
        if len(buffer) < start + size:
            return None
        self._buffer = buffer[start + size :]
        return bool(buffer[0] & 0x80), buffer[0] & 0x0F, buffer[start : start + size]
