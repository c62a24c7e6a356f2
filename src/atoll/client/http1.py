"""A minimal HTTP/1.1 client connection: one request at a time, keep-alive, over a unix socket or TLS.

`http.client` costs 33 ms to import and `socket` 10 ms; the C socket below both costs 0.3 ms.
"""

from __future__ import annotations

import _socket

from atoll.client.errors import ProtocolError, Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Protocol

    class Stream(Protocol):
        """The little that is used of a connected socket."""

        def sendall(self, data: bytes, /) -> None: ...
        def recv(self, size: int, /) -> bytes: ...
        def fileno(self) -> int: ...
        def shutdown(self, how: int, /) -> None: ...
        def close(self) -> None: ...


RECEIVE = 64 * 1024  # below the 128 KiB from which malloc maps and unmaps pages for each buffer


_HINTS = {
    PermissionError: " (root may, and the daemon's group)",
    FileNotFoundError: " (does atolld run?)",
    ConnectionRefusedError: " (does atolld run?)",
}


def connect_unix(path: str) -> Stream:
    """A stream to a unix socket; Unreachable when nobody listens."""
    stream = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC, 0)
    try:
        stream.connect(path)
    except OSError as error:
        stream.close()
        hint = _HINTS.get(type(error), "")
        raise Unreachable(path, (error.strerror or str(error)).lower() + hint) from error
    return stream


class Response:
    """A complete answer: status, headers (names in lower case) and body."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class Connection:
    """One connection to a server.

    A request is sent with `send` and answered with `receive`; between the two, the caller may wait on `fileno()`.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._buffer = b""

    def fileno(self) -> int:
        """For select and poll."""
        return self.stream.fileno()

    def close(self) -> None:
        """Close the connection; nothing can be sent after it."""
        self.stream.close()

    def send(self, method: str, target: str, headers: Mapping[str, str], body: bytes | Iterable[bytes] | None = None) -> None:
        """Send one request. A body that is not bytes is sent as it comes: with a Content-Length among the headers as it is,
        else in chunks. ProtocolError when the connection breaks; what the body raises is its own."""
        lines = [f"{method} {target} HTTP/1.1", *([] if "Host" in headers else ["Host: atoll"])]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if isinstance(body, bytes):
            lines.append(f"Content-Length: {len(body)}")
        sized = "Content-Length" in headers
        if body is not None and not isinstance(body, bytes) and not sized:
            lines.append("Transfer-Encoding: chunked")
        head = "\r\n".join([*lines, "\r\n"]).encode()
        if body is None or isinstance(body, bytes):
            self._send(head + (body or b""))
            return
        self._send(head)
        for chunk in body:
            if chunk:
                self._send(chunk if sized else b"%x\r\n%b\r\n" % (len(chunk), chunk))
        if not sized:
            self._send(b"0\r\n\r\n")

    def receive(
        self,
        *,
        sink: Callable[[bytes], object] | None = None,
        choose: Callable[[Mapping[str, str]], Callable[[bytes], object] | None] | None = None,
        bodyless: bool = False,
    ) -> Response:
        """The answer to the request sent last. `sink` takes the body of a 200 piece by piece instead of memory; `choose` is
        given its headers and returns the sink (None: memory). ProtocolError when the connection breaks; what a sink raises is
        its own."""
        status, headers = self.receive_head()
        pieces: list[bytes] = []
        if status == 200 and choose is not None:
            sink = choose(headers)
        take = sink if sink is not None and status == 200 else pieces.append
        if not bodyless and status not in (101, 204, 304):
            self._receive_body(headers, take)
        return Response(status, headers, b"".join(pieces))

    def receive_head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the answer; its body is still to be read."""
        while b"\r\n\r\n" not in self._buffer:
            self._fill()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        version, _, rest = first.partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
            raise ProtocolError(f"Not an HTTP answer: {first[:80]!r}")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        return int(rest[:3]), headers

    def take_buffered(self) -> bytes:
        """Bytes that came after the last answer: the first ones of an upgraded protocol."""
        rest, self._buffer = self._buffer, b""
        return rest

    def _send(self, data: bytes) -> None:
        try:
            self.stream.sendall(data)
        except OSError as error:
            raise ProtocolError(f"The connection broke: {error.strerror}") from error

    def _more(self, size: int = RECEIVE) -> bytes:
        try:
            return self.stream.recv(size)
        except OSError as error:
            raise ProtocolError(f"The connection broke: {error.strerror}") from error

    def _fill(self) -> None:
        data = self._more()
        if not data:
            raise ProtocolError("The server closed the connection")
        self._buffer += data

    def _receive_body(self, headers: Mapping[str, str], take: Callable[[bytes], object]) -> None:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int(self._line().split(b";")[0], 16):
                self._receive_exactly(size, take)
                self._line()
            while self._line():
                pass
        elif "content-length" in headers:
            self._receive_exactly(int(headers["content-length"]), take)
        else:
            take(self.take_buffered())
            while data := self._more():
                take(data)

    def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            self._fill()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def _receive_exactly(self, size: int, take: Callable[[bytes], object]) -> None:
        if self._buffer:
            take(self._buffer[:size])
            size, self._buffer = size - len(self._buffer[:size]), self._buffer[size:]
        while size:
            data = self._more(min(size, RECEIVE))
            if not data:
                raise ProtocolError("The server closed the connection in the middle of an answer")
            take(data)
            size -= len(data)
