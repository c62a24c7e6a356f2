"""The HTTP connection against a peer that speaks in every way a server may."""

from __future__ import annotations

import fakes
import pytest

from atoll.client.errors import ProtocolError, Unreachable
from atoll.client.http1 import Connection, connect_unix


def connection(*answers: bytes) -> Connection:
    def talk(end):
        for answer in answers:
            fakes.read_request(end)
            for index in range(0, len(answer), 7):
                end.sendall(answer[index : index + 7])

    return Connection(fakes.Peer(talk).connect())


def test_one_connection_serves_several_requests():
    link = connection(fakes.reply(b"one"), fakes.reply(b"", headers="ETag: x\r\n"), fakes.reply(b"three", status=404))
    answers = []
    for _ in range(3):
        link.send("GET", "/1.0", {})
        answers.append(link.receive())
    assert [(a.status, a.body) for a in answers] == [(200, b"one"), (200, b""), (404, b"three")]
    assert answers[1].headers["etag"] == "x"


def test_chunked_answer():
    link = connection(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n2;x=y\r\nef\r\n0\r\nT: x\r\n\r\n")
    link.send("GET", "/", {})
    assert link.receive().body == b"abcdef"


def test_answer_that_ends_with_the_connection_goes_to_the_sink():
    link = connection(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1000)
    link.send("GET", "/", {})
    taken: list[bytes] = []
    answer = link.receive(sink=taken.append)
    assert (answer.body, b"".join(taken)) == (b"", b"x" * 1000)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", b"SSH-2.0-x\r\n\r\n"])
def test_broken_answers_are_protocol_errors(answer: bytes):
    link = connection(answer)
    link.send("GET", "/", {})
    with pytest.raises(ProtocolError):
        link.receive()


@pytest.mark.parametrize("sized", [True, False])
def test_a_streamed_body_arrives_whole(sized: bool):
    got: list[tuple[str, bytes]] = []

    def talk(end):
        got.append(fakes.read_request(end))
        end.sendall(fakes.reply(b""))

    peer = fakes.Peer(talk)
    link = Connection(peer.connect())
    link.send("POST", "/", {"Content-Length": "6"} if sized else {}, iter([b"abc", b"", b"def"]))
    link.receive()
    assert got[0][1] == (b"abcdef" if sized else b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n")


def test_nobody_listens(tmp_path):
    with pytest.raises(Unreachable, match=r"no such file or directory \(does atolld run\?\)"):
        connect_unix(str(tmp_path / "unix.socket"))
