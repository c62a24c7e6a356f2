"""`exec`: the streams of a command, against a server that is made of socket pairs."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from atoll.cli.commands import execute
from atoll.client import websocket
from atoll.client.http1 import Connection
from atoll.client.server import Server

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
ENDED = b'{"type":"sync","metadata":{"status_code":200,"metadata":{"return":7}}}'


class End:
    """The server's end of one websocket."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._file = end.makefile("rb")

    def upgrade(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self._file.readline()
        key = head.decode().partition("Sec-WebSocket-Key: ")[2].partition("\r\n")[0]
        accept = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
        self._end.sendall(f"HTTP/1.1 101 X\r\nSec-WebSocket-Accept: {accept}\r\n\r\n".encode())

    def send(self, payload: bytes, kind: int = websocket.BINARY) -> None:
        self._end.sendall(struct.pack("!BBQ", 0x80 | kind, 127, len(payload)) + payload)

    def receive(self) -> tuple[int, bytes]:
        kind, size = self._file.read(2)
        size &= 0x7F
        if size >= 126:
            size = int.from_bytes(self._file.read(2 if size == 126 else 8), "big")
        key = self._file.read(4)
        return kind & 0x0F, websocket.mask(self._file.read(size), key)


class Peer:
    """The server of one command: a connection for the result, and a websocket for each stream and for the control channel."""

    def __init__(self) -> None:
        self.ours: dict[str, socket.socket] = {}
        self.ends: dict[str, End] = {}
        for name in ("result", "0", "1", "2", "control"):
            ours, theirs = socket.socketpair()
            self.ours[name] = ours
            self.ends[name] = End(theirs)
            if name == "result":
                self._result = theirs
        self.controls = 0

    def exchange(self, *, read_input: bool = True) -> execute.Exchange:
        server = Server(lambda: self.ours["result"])
        server.send("GET", "/1.0/operations/x/wait", {})
        streams = {name: self._open(name) for name in ("0", "1", "2")}
        return execute.Exchange(server, streams, self._control, read_input=read_input)

    def _open(self, name: str) -> websocket.WebSocket:
        opened = websocket.WebSocket(Connection(self.ours[name]))
        opened.open("/")
        return opened

    def _control(self) -> websocket.WebSocket:
        self.controls += 1
        return self._open("control")

    def end(self) -> None:
        """The outputs and the command end."""
        for name in ("1", "2"):
            self.ends[name].send(b"", websocket.TEXT)
        self._result.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(ENDED), ENDED))


@pytest.fixture
def given() -> Iterator[Callable[[bytes], None]]:
    """Make bytes the standard input of this process."""
    kept = os.dup(0)
    reading, writing = os.pipe()
    os.dup2(reading, 0)
    os.close(reading)

    def feed(data: bytes) -> None:
        with open(writing, "wb") as pipe:
            pipe.write(data)

    yield lambda data: threading.Thread(target=feed, args=(data,), daemon=True).start()
    os.dup2(kept, 0)
    os.close(kept)


def serve(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_short_command_has_no_control_channel(given, capfdbinary):
    peer = Peer()
    received = []

    def work() -> None:
        for name in ("0", "1", "2"):
            peer.ends[name].upgrade()
        received.extend(peer.ends["0"].receive() for _ in range(2))
        peer.ends["1"].send(b"out")
        peer.ends["2"].send(b"err")
        peer.end()

    given(b"in")
    thread = serve(work)
    assert peer.exchange().run() == 7
    thread.join(30)
    assert received == [(websocket.BINARY, b"in"), (websocket.TEXT, b"")]
    assert capfdbinary.readouterr() == (b"out", b"err")
    assert peer.controls == 0


def test_a_command_that_goes_on_has_one(given):
    peer = Peer()

    def work() -> None:
        for name in ("0", "1", "2", "control"):
            peer.ends[name].upgrade()
        peer.end()

    given(b"")
    thread = serve(work)
    assert peer.exchange().run() == 7
    thread.join(30)
    assert peer.controls == 1


@pytest.mark.timeout(60)
def test_output_is_read_while_the_command_takes_no_input(given, capfdbinary):
    """As `cat` does it: what it reads it writes, and it reads no more until that is taken."""
    data = os.urandom(3_000_000)
    peer = Peer()
    received = b""

    def work() -> None:
        nonlocal received
        for name in ("0", "1", "2"):
            peer.ends[name].upgrade()
        peer.ends["0"].receive()  # the input has begun: ours fills the socket while we only send
        threading.Event().wait(0.3)
        peer.ends["1"].send(b"x" * 3_000_000)
        while (message := peer.ends["0"].receive())[0] == websocket.BINARY:
            received += message[1]
        peer.end()

    given(data)
    thread = serve(work)
    serve_control = serve(peer.ends["control"].upgrade)
    assert peer.exchange().run() == 7
    thread.join(30)
    serve_control.join(30)
    assert data.endswith(received)
    assert len(received) > 2_900_000
    assert len(capfdbinary.readouterr().out) == 3_000_000
