"""Processes by pidfd: a handle that a reused process id can never redirect to a stranger."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
from collections.abc import Callable

from atoll.domain.errors import NotFound


def open(pid: int) -> int:
    """A close-on-exec pidfd of a process. NotFound when there is none; the caller closes it."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError as error:
        raise NotFound(f"There is no process {pid}") from error


def send(fd: int, number: int) -> bool:
    """Send a signal; False when the process is gone."""
    try:
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    return True


def is_gone(fd: int) -> bool:
    """Whether the process has ended (it may still be a zombie)."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(0))


class Watch:
    """Calls back once, on the event loop, when a process has ended. Owns the pidfd."""

    def __init__(self, fd: int, ended: Callable[[], None]) -> None:
        self.fd = fd
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(fd, self._fire)

    def _fire(self) -> None:
        self._loop.remove_reader(self.fd)
        self._ended()

    def close(self) -> None:
        """Stop watching and close the pidfd; may be called twice."""
        if self.fd >= 0:
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                self._loop.remove_reader(self.fd)
            os.close(self.fd)
            self.fd = -1
