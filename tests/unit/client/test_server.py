"""Envelopes, errors, projects and operations."""

from __future__ import annotations

import json
import select
import threading

import fakes
import pytest

from atoll.client import address, codec
from atoll.client import server as server_module
from atoll.client.errors import OperationFailed, ProtocolError, ServerError
from atoll.client.server import Server


class Script:
    """A server that answers with the given envelopes in turn and keeps the requests."""

    def __init__(self, *envelopes: dict) -> None:
        self._envelopes = list(envelopes)
        self.heads: list[str] = []
        self.bodies: list[bytes] = []

    def __call__(self, end) -> None:
        while self._envelopes:
            head, body = fakes.read_request(end)
            if not head:
                return
            self.heads.append(head.split("\r\n")[0])
            self.bodies.append(body)
            end.sendall(fakes.reply(json.dumps(self._envelopes.pop(0)).encode(), headers='ETag: "e"\r\n'))


def sync(metadata) -> dict:
    return {"type": "sync", "status_code": 200, "metadata": metadata}


STARTED = {"type": "async", "operation": "/1.0/operations/1?project=x", "metadata": {"status_code": 103}}


def test_get_unwraps_and_adds_project_and_target():
    script = Script(sync(["a"]), sync({}))
    server = Server(fakes.Peer(script).connect, project="a b", target="m1")
    assert server.get("/1.0/profiles?recursion=1") == ["a"]
    server.get("/1.0/x?project=own")
    assert script.heads == [
        "GET /1.0/profiles?recursion=1&project=a%20b&target=m1 HTTP/1.1",
        "GET /1.0/x?project=own&target=m1 HTTP/1.1",
    ]


def test_errors_carry_status_and_text():
    server = Server(fakes.Peer(Script({"type": "error", "error": "Not here", "error_code": 404})).connect)
    with pytest.raises(ServerError, match="Not here") as caught:
        server.get("/1.0/x")
    assert caught.value.status == 404


def test_a_change_waits_for_its_operation():
    script = Script(STARTED, sync({"status_code": 200, "metadata": {"fingerprint": "f"}}))
    answer = Server(fakes.Peer(script).connect).change("POST", "/1.0/images", {"a": None}, etag='"e"')
    assert answer.metadata["metadata"] == {"fingerprint": "f"}
    assert script.heads[1] == "GET /1.0/operations/1/wait HTTP/1.1"
    assert script.bodies[0] == b'{"a":null}'


def test_a_failed_operation_is_an_error():
    script = Script(STARTED, sync({"status_code": 400, "status": "Failure", "err": "No space"}))
    with pytest.raises(OperationFailed, match="No space"):
        Server(fakes.Peer(script).connect).change("POST", "/1.0/images")


def test_progress_is_polled_on_a_second_connection():
    seen = []
    running = sync({"status_code": 103, "metadata": {"build_progress": "unpacking"}})
    polled = threading.Event()

    def talk(end):
        while True:
            head, _ = fakes.read_request(end)
            if not head:
                return
            if "/wait" in head:
                polled.wait(30)
            envelope = sync({"status_code": 200}) if "/wait" in head else running
            end.sendall(fakes.reply(json.dumps(envelope).encode()))
            if envelope is running:
                polled.set()

    Server(fakes.Peer(talk).connect).wait("/1.0/operations/1", progress=seen.append)
    assert seen
    assert seen[0] == {"build_progress": "unpacking"}


def test_no_envelope_is_a_protocol_error():
    server = Server(fakes.Peer(lambda end: (fakes.read_request(end), end.sendall(fakes.reply(b"<html>")))).connect)
    with pytest.raises(ProtocolError):
        server.get("/1.0")


VALUES = ["", "a", 'q"\\\n\t', "日本 😀", None, True, False, 0, -5, 2**70, 1.5, [], {}, {"a": [1, {"b": None}]}]


@pytest.mark.parametrize("value", VALUES)
def test_codec_agrees_with_json(value):
    assert json.loads(codec.dumps(value)) == value
    assert codec.loads("  " + json.dumps(value, indent=1) + "\n") == value


@pytest.mark.parametrize("text", ["", "{", "1 2", "nul", '{"a":}', "[1,]"])
def test_codec_refuses_what_is_not_json(text: str):
    with pytest.raises(ValueError):
        codec.loads(text)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"ATOLL_SOCKET": "/s", "ATOLL_DIR": "/d"}, "/s"),
        ({"ATOLL_DIR": "/d/", "LXD_DIR": "/l"}, "/d/unix.socket"),
        ({"LXD_SOCKET": "/ls", "LXD_DIR": "/l"}, "/ls"),
        ({"LXD_DIR": "/l"}, "/l/unix.socket"),
        ({}, "/var/lib/atoll/unix.socket"),
    ],
)
def test_where_the_socket_is(environment: dict[str, str], expected: str):
    assert address.local_socket(lambda name: environment.get(name, "")) == expected


def test_url_quotes_segments_and_leaves_out_empty_queries():
    assert address.url("images", "aliases", "debian/12", recursion="", all_projects="true") == (
        "/1.0/images/aliases/debian%2F12?all-projects=true"
    )


@pytest.fixture
def interrupted_once(monkeypatch):
    """The first wait for an answer is broken off by Ctrl-C."""
    found = []

    class Interrupted:
        @staticmethod
        def select(*arguments):
            if not found:
                found.append(arguments)
                raise KeyboardInterrupt
            return select.select(*arguments)

    monkeypatch.setattr(server_module, "select", Interrupted)


def test_an_interrupted_wait_goes_on_where_the_caller_wants_it(interrupted_once):
    told = []
    script = Script(sync({"status_code": 200, "metadata": {"a": 1}}))
    answer = Server(fakes.Peer(script).connect).wait("/1.0/operations/1", interrupted=lambda: told.append("once"))
    assert (answer["metadata"], told, len(script.heads)) == ({"a": 1}, ["once"], 1)


def test_an_interrupted_wait_ends_where_nobody_says_otherwise(interrupted_once):
    server = Server(fakes.Peer(fakes.read_request).connect)
    with pytest.raises(KeyboardInterrupt):
        server.wait("/1.0/operations/1")
    assert server.fileno() == -1  # the answer that nobody waited for is not taken for another


def test_a_caller_may_give_up_an_interrupted_wait(interrupted_once):
    def give_up() -> None:
        raise ValueError("enough")

    server = Server(fakes.Peer(fakes.read_request).connect)
    with pytest.raises(ValueError, match="enough"):
        server.wait("/1.0/operations/1", interrupted=give_up)
    assert server.fileno() == -1


def test_what_keeps_a_download_from_being_written_is_not_blamed_on_the_connection():
    def refuse(piece: bytes) -> None:
        raise OSError(28, "No space left on device", "target")

    server = Server(fakes.Peer(Script(sync("first"))).connect)
    with pytest.raises(OSError, match="No space left on device: 'target'"):
        server.exchange("GET", "/1.0/x", {}, sink=refuse)
    assert server.fileno() == -1


def test_after_a_broken_off_download_the_connection_is_not_used_again():
    def refuse(piece: bytes) -> None:
        raise ValueError("disk full")

    peer = fakes.Peer(lambda end: Script(sync("first"), sync("second"))(end))
    server = Server(peer.connect)
    with pytest.raises(ValueError, match="disk full"):
        server.exchange("GET", "/1.0/x", {}, sink=refuse)
    assert server.fileno() == -1
    assert server.get("/1.0/y") == "first"
