"""strace on a daemon: it counts system calls, or makes one of them fail or kill."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from box import wait_until


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
    try:
        tracer.wait(1)
    except subprocess.TimeoutExpired:
        tracer.kill()
        tracer.wait()
