"""Who is at the other end of a socket."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from atoll.domain.errors import NotFound
from atoll.drivers.instance.lxc import residents
from atoll.host import peer, unix_diag

SOURCE = Path(peer.__file__).parents[2]
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

CALLER = """
import socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect(sys.argv[1])
print(flush=True)
link.recv(1)
"""


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "s"))
        made.listen()
        yield made


def caller(listener: socket.socket, *before: str) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A process that has connected, and the connection."""
    argv = [*before, sys.executable, "-IS", "-c", CALLER, listener.getsockname()]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"\n"
    return process, listener.accept()[0]


@pytest.fixture(params=["pidfd", "diagnostics"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One that tells a peer's pidfd, and one that does not."""
    if request.param == "diagnostics":
        monkeypatch.setattr(peer, "_held", lambda _: None)
    return str(request.param)


@pytest.mark.usefixtures("kernel")
def test_it_is_the_process_that_connected(listener: socket.socket) -> None:
    process, link = caller(listener)
    with process, link:
        found = peer.of(link)
        assert (found.pid, found.uid, found.is_alive) == (process.pid, os.getuid(), True)
        with peer.pid_namespaces(found.pid) as numbers:
            assert next(numbers) == peer.pid_namespace(os.getpid())
        link.close()
        process.wait()
        assert not found.is_alive
        with peer.pid_namespaces(found.pid) as numbers:
            assert list(numbers) == []
        found.close()


@pytest.mark.usefixtures("kernel")
def test_one_that_is_gone_is_not_found(listener: socket.socket) -> None:
    process, link = caller(listener)
    with process, link:
        process.kill()
        process.wait()
        with pytest.raises(NotFound):
            peer.of(link)


def test_who_does_not_hold_the_other_end(listener: socket.socket) -> None:
    process, link = caller(listener)
    with process, link:
        assert unix_diag.holds_peer(process.pid, link)
        assert not unix_diag.holds_peer(os.getpid(), link)
        assert not unix_diag.holds_peer(2**22 + 1, link)
        link.close()


@AS_ROOT
@pytest.mark.usefixtures("kernel")
def test_namespaces_are_seen_from_the_innermost_outwards(listener: socket.socket) -> None:
    nested = (
        "unshare",
        "--pid",
        "--fork",
        "--kill-child",
        "unshare",
        "--user",
        "--map-root-user",
        "--pid",
        "--fork",
        "--kill-child",
    )
    process, link = caller(listener, *nested)
    with process, link:
        found = peer.of(link)
        with peer.pid_namespaces(found.pid) as numbers:
            seen = list(numbers)
        assert len(seen) == len(set(seen)) == 3
        assert seen[0] == peer.pid_namespace(found.pid)
        assert seen[-1] == peer.pid_namespace(os.getpid())
        found.close()
        link.close()


@AS_ROOT
@pytest.mark.parametrize("more", [[], ["--old-kernel"]])
def test_no_process_is_taken_for_the_one_that_had_its_number(more: list[str]) -> None:
    """A few of the 10,000 attempts that `pid_reuse.py` makes by itself."""
    argv = [sys.executable, str(Path(__file__).with_name("pid_reuse.py")), "60", *more]
    done = subprocess.run(argv, env={**os.environ, "PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 confusions" in done.stdout


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ("0::/atoll/payload/c1\n", True),
        ("4:memory:/atoll/payload/c1/init.scope\n0::/\n", True),
        ("0::/host/atoll/payload/c1/x\n", True),
        ("0::/atoll/payload/c10\n", False),
        ("0::/atoll/monitor/c1\n", False),
        ("", False),
    ],
)
def test_groups_are_below_a_machine_s(groups: str, expected: bool) -> None:
    assert residents.is_below(groups, "atoll/payload/c1") is expected
