"""`console`: the keys that leave and those that do not, and the log."""

from __future__ import annotations

import pytest
from recorder import Operation

from atoll.cli.commands import console
from atoll.cli.errors import CommandError

KEYS = [
    ([b"ls -q\r"], b"ls -q\r", False),
    ([b"a\x01qb"], b"a", True),
    ([b"\x01", b"q"], b"", True),
    ([b"\x01", b"\x01", b"q"], b"\x01q", False),
    ([b"\x01x", b"q"], b"xq", False),
    ([b"\x01\x01\x01q"], b"\x01", True),
]


@pytest.mark.parametrize(("typed", "passed", "left"), KEYS)
def test_keys(typed: list[bytes], passed: bytes, left: bool) -> None:
    attachment = console.Attachment.__new__(console.Attachment)
    leaves: list[bool] = []
    attachment.leave = lambda: leaves.append(True)  # type: ignore[method-assign]
    assert b"".join(map(attachment.typed, typed)) == passed
    assert bool(leaves) == left


def test_kinds() -> None:
    console.check_kind("console")
    with pytest.raises(CommandError):
        console.check_kind("serial")


def test_starting_at_the_console(command, monkeypatch) -> None:
    attached = []
    monkeypatch.setattr(console, "attach", lambda server, name, kind: attached.append((name, kind)) or 0)
    answers = {
        "GET /1.0/instances/c1": {"status": "Stopped"},
        "PUT /1.0/instances/c1/state": Operation(),
    }
    command("start c1 --console", answers)
    command("restart c1 --console", answers)
    command("stop c1 --console=console", answers)
    assert attached == [("c1", "console")] * 3
    for line in ("start c1 c2 --console", "stop c1 --force --console", "start c1 --all --console"):
        with pytest.raises(CommandError):
            command(line, answers)


def test_waiting(command) -> None:
    answers = {"GET /1.0": {"api_extensions": ["atoll_instance_wait"]}, "POST /1.0/instances/c1/wait": Operation()}
    asked = command("wait c1 --for ipv4 --for tcp=80 --timeout 2.5", answers)
    assert asked.sent("POST") == [("POST /1.0/instances/c1/wait", {"for": ["ipv4", "tcp=80"], "timeout": 2.5})]
    with pytest.raises(CommandError, match="atoll_instance_wait"):
        command("wait c1", {"GET /1.0": {"api_extensions": []}})
    with pytest.raises(CommandError, match="number"):
        command("wait c1 --timeout soon", answers)
