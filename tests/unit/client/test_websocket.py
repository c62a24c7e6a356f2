"""Frames both ways, and the rule that an upgrade is not waited for."""

from __future__ import annotations

import base64
import hashlib
import socket

import fakes
import pytest

from atoll.client import websocket
from atoll.client.errors import ProtocolError
from atoll.client.http1 import Connection

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def upgrade(end: socket.socket, *, good: bool = True) -> None:
    head, _ = fakes.read_request(end)
    key = head.partition("Sec-WebSocket-Key: ")[2].partition("\r\n")[0]
    accept = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode() if good else "x"
    end.sendall(f"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n".encode())


def frame(kind: int, payload: bytes, *, final: bool = True) -> bytes:
    size = len(payload)
    head = bytes([kind | (0x80 if final else 0)])
    if size < 126:
        return head + bytes([size]) + payload
    return head + (bytes([126]) + size.to_bytes(2, "big") if size < 65536 else bytes([127]) + size.to_bytes(8, "big")) + payload


def opened(talk) -> websocket.WebSocket:
    found = websocket.WebSocket(Connection(fakes.Peer(talk).connect()))
    found.open("/1.0/events")
    return found


def everything(link: websocket.WebSocket) -> list[tuple[int, bytes]]:
    messages = []
    while not link.closed:
        messages += list(link.receive())
    return messages


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 1_000_000])
def test_messages_of_every_length_class(size: int):
    def talk(end):
        upgrade(end)
        end.sendall(frame(websocket.BINARY, b"z" * size) + frame(websocket.CLOSE, b""))

    assert everything(opened(talk)) == [(websocket.BINARY, b"z" * size)]


def test_fragments_are_joined_and_pings_between_them_answered():
    pongs = []

    def talk(end):
        upgrade(end)
        end.sendall(frame(websocket.TEXT, b"ab", final=False) + frame(websocket.PING, b"p") + frame(0, b"cd"))
        pongs.append(end.recv(100))
        end.sendall(frame(websocket.CLOSE, b""))

    assert everything(opened(talk)) == [(websocket.TEXT, b"abcd")]
    head, key, payload = pongs[0][:2], pongs[0][2:6], pongs[0][6:]
    assert (head, websocket.mask(payload, key)) == (bytes([0x80 | websocket.PONG, 0x81]), b"p")


def test_a_vanished_peer_ends_the_socket():
    assert everything(opened(upgrade)) == []


@pytest.mark.parametrize("answer", ["refused", "wrong"])
def test_an_upgrade_that_fails(answer: str):
    def talk(end):
        if answer == "wrong":
            upgrade(end, good=False)
        else:
            fakes.read_request(end)
            end.sendall(fakes.reply(b"", status=403))

    with pytest.raises(ProtocolError):
        list(opened(talk).receive())


def test_what_is_sent_is_masked():
    got = []

    def talk(end):
        upgrade(end)
        data = b""
        while len(data) < 8 + 70000 + 6:
            data += end.recv(100_000)
        got.append(data)

    peer = fakes.Peer(talk)
    link = websocket.WebSocket(Connection(peer.connect()))
    link.open("/")
    link.finish_opening()
    link.send_binary(b"k" * 70000)
    peer.join()
    data = got[0]
    assert data[:2] == bytes([0x82, 0x80 | 127])
    assert websocket.mask(data[14:], data[10:14]) == b"k" * 70000
