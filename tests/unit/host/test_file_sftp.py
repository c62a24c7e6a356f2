"""SFTP as a client sees it; and as one that sends nonsense does."""

from __future__ import annotations

import os
import socket
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atoll.host import file_sftp, file_sftp_wire
from atoll.host.file_tree import Tree

OK, EOF, NO_SUCH_FILE, FAILURE, BAD_MESSAGE, UNSUPPORTED = 0, 1, 2, 4, 5, 8
STATUS, HANDLE, DATA, NAME, ATTRS, EXTENDED = 101, 102, 103, 104, 105, 201


def text(value: bytes | str) -> bytes:
    data = os.fsencode(value)
    return struct.pack(">I", len(data)) + data


def attributes(**given: int) -> bytes:
    flags, body = 0, b""
    if "size" in given:
        flags, body = flags | 1, body + struct.pack(">Q", given["size"])
    if "uid" in given:
        flags, body = flags | 2, body + struct.pack(">II", given["uid"], given["gid"])
    if "mode" in given:
        flags, body = flags | 4, body + struct.pack(">I", given["mode"])
    if "time" in given:
        flags, body = flags | 8, body + struct.pack(">II", given["time"], given["time"])
    return struct.pack(">I", flags) + body


class Client:
    """Sends packets and takes the answers apart."""

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream
        self._file = stream.makefile("rb")
        self._number = 0

    def send(self, kind: int, body: bytes) -> None:
        self.stream.sendall(struct.pack(">IB", len(body) + 1, kind) + body)

    def receive(self) -> tuple[int, bytes]:
        size = int.from_bytes(self._file.read(4), "big")
        packet = self._file.read(size)
        return packet[0], packet[1:]

    def ask(self, kind: int, *fields: bytes) -> tuple[int, bytes]:
        """(type, body) of the answer."""
        self._number += 1
        self.send(kind, struct.pack(">I", self._number) + b"".join(fields))
        answer, body = self.receive()
        assert int.from_bytes(body[:4], "big") == self._number
        return answer, body[4:]

    def status(self, kind: int, *fields: bytes) -> int:
        """The code of an answer that has to be a status."""
        answer, body = self.ask(kind, *fields)
        assert answer == STATUS, (answer, body)
        return int.from_bytes(body[:4], "big")

    def open(self, path: str, flags: int, **given: int) -> bytes:
        answer, body = self.ask(3, text(path), struct.pack(">I", flags), attributes(**given))
        assert answer == HANDLE, body
        return body


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("the host's")
    (tmp_path / "top").mkdir()
    return tmp_path / "top"


@pytest.fixture
def start(top: Path) -> Iterator[Callable[[], socket.socket]]:
    """Streams to servers on the tree, each with a thread of its own."""
    fds = [os.open(top, os.O_PATH), os.open("/proc/self/fd", os.O_PATH)]
    threads: list[tuple[socket.socket, threading.Thread]] = []

    def begin() -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.settimeout(10)

        def serve() -> None:
            with theirs:
                file_sftp.serve(theirs, Tree(*fds))

        threads.append((ours, threading.Thread(target=serve)))
        threads[-1][1].start()
        return ours

    yield begin
    for ours, thread in threads:
        ours.close()
        thread.join(10)
        assert not thread.is_alive()
    for fd in fds:
        os.close(fd)


@pytest.fixture
def client(start: Callable[[], socket.socket]) -> Iterator[Client]:
    made = Client(start())
    made.send(1, struct.pack(">I", 3))
    kind, body = made.receive()
    assert (kind, body[:4]) == (2, struct.pack(">I", 3)) and b"posix-rename@openssh.com" in body
    yield made
    made._file.close()


def test_a_file_from_its_making_to_its_end(client: Client, top: Path) -> None:
    handle = client.open("/f", 0x02 | 0x08 | 0x10, mode=0o640)
    for offset in (0, 100_000):
        assert client.status(6, handle, struct.pack(">Q", offset), text(b"x" * 100_000)) == OK
    assert client.status(10, handle, attributes(mode=0o600, time=12345)) == OK
    assert client.status(4, handle) == OK
    assert (top / "f").stat().st_size == 200_000 and (top / "f").stat().st_mtime == 12345
    handle = client.open("f", 0x01)
    kind, body = client.ask(5, handle, struct.pack(">QI", 199_990, 1000))
    assert (kind, body) == (DATA, text(b"x" * 10))
    assert client.status(5, handle, struct.pack(">QI", 200_000, 1000)) == EOF
    kind, body = client.ask(8, handle)
    assert kind == ATTRS and struct.unpack(">IQII I", body[:24])[1:] == (200_000, os.geteuid(), os.getegid(), 0o100600)
    assert client.status(9, text("f"), attributes(size=5)) == OK and (top / "f").stat().st_size == 5
    assert client.status(13, text("f")) == OK and not (top / "f").exists()
    assert client.status(4, b"\0\0\0\x08" + bytes(8)) == BAD_MESSAGE


def test_an_appending_handle_appends(client: Client, top: Path) -> None:
    (top / "f").write_text("one")
    handle = client.open("f", 0x02 | 0x04)
    assert client.status(6, handle, struct.pack(">Q", 0), text(b"two")) == OK
    assert (top / "f").read_text() == "onetwo"


def test_directories_are_listed_whole(client: Client, top: Path) -> None:
    assert client.status(14, text("/d"), attributes(mode=0o750)) == OK
    names = {f"f{number}" for number in range(250)} | {os.fsdecode(b"\xff")}
    for name in names:
        (top / "d" / name).touch()
    kind, handle = client.ask(11, text("d"))
    assert kind == HANDLE
    found: set[str] = set()
    while True:
        kind, body = client.ask(12, handle)
        if kind == STATUS:
            assert body[:4] == struct.pack(">I", EOF)
            break
        packet = file_sftp_wire.Packet(body)
        for _ in range(packet.number()):
            name, line = os.fsdecode(packet.string()), packet.string()
            assert line.startswith(b"-rw-") and line.endswith(os.fsencode(name))
            file_sftp_wire.Attributes(packet)
            found.add(name)
    assert found == names
    assert client.status(15, text("d")) == FAILURE
    assert client.status(12, text(b"nothing")) == BAD_MESSAGE


def test_names(client: Client, top: Path) -> None:
    (top / "a").write_text("a")
    assert client.status(20, text("../../target"), text("l")) == OK
    assert client.ask(19, text("l"))[1][4:] == text("../../target") * 2 + bytes(4)
    assert client.status(200, text("hardlink@openssh.com"), text("a"), text("b")) == OK
    assert client.status(18, text("a"), text("b")) == FAILURE
    assert client.status(200, text("posix-rename@openssh.com"), text("l"), text("b")) == OK
    assert (top / "b").is_symlink()
    assert client.status(18, text("b"), text("c")) == OK
    assert client.status(13, text("none")) == NO_SUCH_FILE
    for path, plain in (("", "/"), (".", "/"), ("../../x/./y/..", "/x"), ("//x", "/x")):
        assert client.ask(16, text(path))[1][4:] == text(plain) * 2 + bytes(4)


def test_the_extensions(client: Client, top: Path) -> None:
    kind, body = client.ask(200, text("statvfs@openssh.com"), text("/"))
    assert kind == EXTENDED and struct.unpack(">11Q", body)[0] == os.statvfs(top).f_bsize
    assert client.ask(200, text("limits@openssh.com"))[0] == EXTENDED
    handle = client.open("f", 0x02 | 0x08)
    assert client.status(200, text("fsync@openssh.com"), handle) == OK
    assert client.status(200, text("unheard@of.org")) == UNSUPPORTED
    assert client.status(99) == UNSUPPORTED


def test_nothing_leads_out_and_nothing_hangs(client: Client, top: Path) -> None:
    (top / "abs").symlink_to(top.parent / "secret")
    (top / "up").symlink_to("../secret")
    os.mkfifo(top / "fifo")
    for path in ("abs", "up", "../secret", str(top.parent / "secret")):
        assert client.status(3, text(path), struct.pack(">I", 1), attributes()) == NO_SUCH_FILE
        assert client.status(17, text(path)) == NO_SUCH_FILE
    for flags in (0x01, 0x02, 0x0A):
        assert client.status(3, text("fifo"), struct.pack(">I", flags), attributes()) == FAILURE
    assert client.status(3, text("a\0b"), struct.pack(">I", 1), attributes()) == FAILURE
    assert (top.parent / "secret").read_text() == "the host's"


def test_handles_are_limited(client: Client, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_sftp, "MAX_HANDLES", 3)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        client.ask(11, text("/"))
    assert client.status(11, text("/")) == FAILURE
    assert len(os.listdir("/proc/self/fd")) - before < 10
    assert stat.S_ISDIR(top.stat().st_mode)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">IBI", 5, 1, 2),  # an older version
        struct.pack(">IBI", 5, 3, 3),  # not the first packet
        struct.pack(">I", 0xFFFFFFFF) + b"\1",
        struct.pack(">IBI", 5, 1, 3) + struct.pack(">I", 0),
        struct.pack(">IBI", 5, 1, 3) + struct.pack(">IBI", 5000, 3, 1),
    ],
)
def test_a_stream_that_is_no_sftp_ends(start: Callable[[], socket.socket], sent: bytes) -> None:
    stream = start()
    stream.sendall(sent)
    stream.shutdown(socket.SHUT_WR)
    while stream.recv(1 << 16):
        pass


@given(kind=st.sampled_from(sorted(file_sftp._REQUESTS)), body=st.binary(max_size=60))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_nonsense_is_answered(client: Client, top: Path, kind: int, body: bytes) -> None:
    client.ask(kind, body)
