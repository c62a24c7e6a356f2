"""A machine's console: the terminal that liblxc gives a guest as /dev/console, and the log that it keeps of it.

liblxc could keep the log in a ring buffer too, which a look empties, and which replaces the log when the machine ends. The log
alone, in two halves that it turns over by itself, holds the same whatever was looked at, and costs the monitor no memory.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from pathlib import Path

from atoll.domain.errors import Conflict, HostError
from atoll.drivers.instance.contract import CONSOLE_LOG_BYTES
from atoll.drivers.instance.lxc.monitor import Machine
from atoll.host import guest_pty, lxc_command, threads
from atoll.host.threads import in_thread

log = logging.getLogger(__name__)

LOG = "console.log"
OLDER = "console.log.1"
"""liblxc's name for what it turned over."""


class Console:
    """A hold on it, as the contract has it."""

    def __init__(self, machine: Machine, link: socket.socket, fd: int) -> None:
        self._machine = machine
        self._link = link
        self._fd = fd

    @property
    def fd(self) -> int:
        """The master of a terminal that stands for the guest's."""
        return self._fd

    async def resize(self, *, width: int, height: int) -> None:
        """Set the size of the guest's own terminal: that of ours is nothing to the guest."""
        try:
            with self._machine.hold_init() as (init_pid, init_fd):
                await in_thread(guest_pty.resize_console, init_pid, init_fd, width=width, height=height)
        except (OSError, Conflict) as error:
            log.debug("The console of %s cannot be resized: %s", self._machine.id.key, error)

    def close(self) -> None:
        """Let go: the monitor notices by the socket."""
        if self._fd >= 0:
            _let_go((self._link, self._fd))
            self._fd = -1


def _let_go(held: tuple[socket.socket, int]) -> None:
    link, fd = held
    link.close()
    os.close(fd)


async def attach(lxcpath: str, machine: Machine) -> Console:
    """A hold on a machine's console. Conflict while there is another."""
    try:
        link, fd = await threads.obtained(_let_go, lxc_command.open_console, lxcpath, machine.id.key)
    except OSError as error:
        raise HostError(f"No console of the instance {machine.id.name!r}: {error}") from error
    return Console(machine, link, fd)


def read(log_dir: Path) -> bytes | None:
    """The end of the log, over both halves; None if there is none."""
    found = []
    room = CONSOLE_LOG_BYTES
    for name in (LOG, OLDER):
        try:
            part = _tail(log_dir / name, room)
        except FileNotFoundError:
            continue
        room -= len(part)
        found.append(part)
    return b"".join(reversed(found)) if found else None


def _tail(path: Path, size: int) -> bytes:
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - size))
        return file.read(size)


def clear(log_dir: Path) -> None:
    """Empty the log; the monitor of a machine that runs goes on writing at its end."""
    (log_dir / OLDER).unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.close(os.open(log_dir / LOG, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW))
