"""strace on a daemon: it counts system calls, or makes one of them fail or kill."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from box import wait_until

GRACE_SECONDS = 3.0
"""For strace to write its log and end, when it has nothing to trace any more."""


@contextmanager
def attached(pid: int, *expressions: str, log: str = "/dev/null") -> Iterator[None]:
    """While the block runs all threads of a process, and what they start, are traced with those expressions."""
    options = [word for expression in expressions for word in ("-e", expression)]
    argv = ["strace", "-f", "-q", "-o", log, *options, "-p", str(pid)]
    tracer = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _is_traced(pid), "the daemon is traced")
        yield
    finally:
        _end(tracer)


def _is_traced(pid: int) -> bool:
    try:
        return not any("TracerPid:\t0\n" in path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status"))
    except OSError:  # a thread has ended meanwhile
        return False


def _end(tracer: subprocess.Popen[bytes]) -> None:
    """In good order, for the process may go on; but that can wait for ever for a thread that has become a zombie meanwhile."""
    tracer.terminate()
    wait_until(lambda: tracer.poll() is not None or not _holds_any(tracer.pid), "what was traced is let go of")
    try:
        tracer.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        tracer.kill()
        tracer.wait()


def _holds_any(tracer: int) -> bool:
    """Whether it traces a thread that can still run."""
    for path in Path("/proc").glob("[0-9]*/task/[0-9]*/status"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            status = path.read_text()
            if f"TracerPid:\t{tracer}\n" in status and "State:\tZ" not in status:
                return True
    return False
