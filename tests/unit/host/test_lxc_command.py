"""Where a monitor is looked for, and whom to believe."""

from __future__ import annotations

import os
import socket
import uuid

import pytest

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
