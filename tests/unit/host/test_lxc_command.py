"""Where a monitor is looked for, and whom to believe."""

from __future__ import annotations

import os
import socket
import struct
import threading
import uuid

import pytest

from atoll.domain.errors import Conflict
from atoll.host import lxc_command


def test_socket_names() -> None:
    assert lxc_command.socket_name("/var/lib/atoll", "c1") == b"\0/var/lib/atoll/c1/command"
    hashed = lxc_command.socket_name("/" + "x" * 100, "c1")
    assert hashed.startswith(b"\0lxc/")
    assert hashed.endswith(b"/command")
    assert len(hashed) == 1 + len("lxc/0123456789abcdef/command")


def test_nobody_is_there() -> None:
    assert lxc_command.find("/nowhere", uuid.uuid4().hex) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_stranger_is_not_believed() -> None:
    """Anyone can bind an abstract name: a listener that is not root's is no monitor."""
    name = uuid.uuid4().hex
    with socket.socket(socket.AF_UNIX) as listener:
        os.seteuid(65534)
        try:
            listener.bind(lxc_command.socket_name("/nowhere", name))
            listener.listen()
        finally:
            os.seteuid(0)
        assert not lxc_command.has_monitor("/nowhere", name)
        assert lxc_command.find("/nowhere", name) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="a monitor is root's")
@pytest.mark.parametrize("answer", [struct.pack("iil", -9, 0, 0), b"", b"\0" * 5])
def test_a_console_that_is_not_given(answer: bytes) -> None:
    """Without a terminal beside it, an answer says that somebody else is attached; nothing is left open."""
    name = uuid.uuid4().hex
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(lxc_command.socket_name("/nowhere", name))
        listener.listen()
        monitor = threading.Thread(target=_answer, args=(listener, answer))
        monitor.start()
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(Conflict):
            lxc_command.open_console("/nowhere", name)
        monitor.join()
        assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.skipif(os.geteuid() != 0, reason="a monitor is root's")
def test_a_console_that_is_given() -> None:
    name = uuid.uuid4().hex
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(lxc_command.socket_name("/nowhere", name))
        listener.listen()
        monitor = threading.Thread(target=_answer, args=(listener, bytes(16), 1))
        monitor.start()
        link, fd = lxc_command.open_console("/nowhere", name)
        monitor.join()
        assert not os.get_inheritable(fd)
        assert link.recv(1) == b""
        os.close(fd)
        link.close()


def _answer(listener: socket.socket, answer: bytes, *fds: int) -> None:
    """Be a monitor for one request."""
    with listener.accept()[0] as link:
        assert struct.unpack("iil", link.recv(16)) == (0, 0, 0)
        if answer:
            socket.send_fds(link, [answer], fds)
