"""Passing on between two servers, with plain sockets in the place of websockets."""

from __future__ import annotations

import socket
import threading

import pytest

from atoll.cli.commands.relay import NAMES, Relay


class Peer:
    """A server whose websockets' other ends are in the hands of the test."""

    def __init__(self):
        self.near, self.far = {}, {}
        for name in NAMES:
            self.near[name], self.far[name] = socket.socketpair()

    def websocket(self, path: str):
        return Plain(self.near[path.rpartition("=")[2]])

    @property
    def end(self):
        return self, {"id": "x", "metadata": {name: name for name in NAMES}}

    def get(self, path: str):
        assert path == "/1.0/operations/x"
        return {"metadata": {"fs_progress": "half of it"}}

    def leave(self):
        for each in self.far.values():
            each.close()


class Plain:
    """What `Relay` needs of a websocket: everything is one binary message."""

    def __init__(self, stream: socket.socket):
        self._stream = stream
        self._send = stream.sendall
        self.closed = False

    def finish_opening(self):
        pass

    def divert(self, send):
        self._send = send
        return self._stream

    def fileno(self):
        return self._stream.fileno()

    def receive(self):
        data = self._stream.recv(100)
        self.closed = not data
        return [(2, data)] if data else []

    def send_binary(self, data: bytes):
        self._send(data)

    def close(self):
        if not self.closed:
            self.closed = True
            self._send(b"goodbye")
        self._stream.close()


def test_progress_is_told_while_there_is_always_something_to_pass_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("atoll.cli.commands.relay._POLL_SECONDS", 60)
    peers = [Peer(), Peer()]
    told = []
    relay = threading.Thread(target=Relay([each.end for each in peers], told.append).run, daemon=True)
    relay.start()
    peers[0].far["fs"].sendall(b"there")
    assert peers[1].far["fs"].recv(10) == b"there"
    peers[0].leave()
    relay.join(10)
    assert not relay.is_alive() and told == [{"fs_progress": "half of it"}]


@pytest.mark.parametrize("first", [0, 1])
def test_it_ends_whichever_side_leaves_first(first: int):
    peers = [Peer(), Peer()]
    relay = threading.Thread(target=Relay([each.end for each in peers], None).run, daemon=True)
    relay.start()
    for name in NAMES:
        peers[0].far[name].sendall(b"there")
        assert peers[1].far[name].recv(10) == b"there"
        peers[1].far[name].sendall(b"back")
        assert peers[0].far[name].recv(10) == b"back"
    peers[first].leave()
    relay.join(10)
    assert not relay.is_alive()
