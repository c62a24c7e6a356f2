"""The HTTP client against a scripted peer."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from atollbench.wire import Connection, WireError

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Connection]]:
    """Gives a function that starts a peer with these answers, one a request, and connects to it."""
    opened: list[Connection] = []
    threads: list[threading.Thread] = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    listener.listen()

    def answer(answers: tuple[bytes, ...]) -> None:
        peer, _ = listener.accept()
        with peer:
            for data in answers:
                peer.recv(65536)
                peer.sendall(data)

    def start(*answers: bytes) -> Connection:
        threads.append(threading.Thread(target=answer, args=(answers,)))
        threads[-1].start()
        opened.append(Connection(tmp_path / "socket", timeout=10))
        return opened[-1]

    yield start
    for connection in opened:
        connection.close()
    for thread in threads:
        thread.join(10)
    listener.close()


def sized(body: bytes, status: bytes = OK) -> bytes:
    return status + b"Content-Length: %d\r\n\r\n" % len(body) + body


def test_answers_on_one_connection_are_kept_apart(serve: Callable[..., Connection]) -> None:
    connection = serve(sized(b'{"a": 1}'), sized(b'{"b": 2}'))
    assert connection.call("GET", "/1.0") == {"a": 1}
    assert connection.call("POST", "/1.0", {"x": "y"}) == {"b": 2}


def test_a_chunked_answer_is_joined(serve: Callable[..., Connection]) -> None:
    chunked = OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"3\r\n[1,\r\n" + b"2;x=y\r\n2]\r\n" + b"0\r\n\r\n"
    connection = serve(chunked, sized(b"{}"))
    assert connection.call("GET", "/1.0/instances") == [1, 2]
    assert connection.call("GET", "/1.0") == {}


def test_a_large_answer_is_read_to_its_end(serve: Callable[..., Connection]) -> None:
    assert len(serve(sized(b"x" * 3_000_000)).fetch("GET", "/")) == 3_000_000


def test_an_error_status_is_raised_with_what_was_said(serve: Callable[..., Connection]) -> None:
    with pytest.raises(WireError, match=r"404 .*no such instance"):
        serve(sized(b"no such instance", b"HTTP/1.1 404 Not Found\r\n")).fetch("GET", "/1.0/instances/x")


def test_a_closed_connection_is_an_error(serve: Callable[..., Connection]) -> None:
    with pytest.raises(WireError, match="closed"):
        serve(OK).fetch("GET", "/")


def test_a_failed_operation_is_an_error(serve: Callable[..., Connection]) -> None:
    connection = serve(sized(b'{"metadata": {"status_code": 400, "status": "Failure", "err": "no space"}}'))
    with pytest.raises(WireError, match="no space"):
        connection.finish({"type": "async", "operation": "/1.0/operations/1"})
