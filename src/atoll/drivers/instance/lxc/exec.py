"""A command in a machine, as the contract has it."""

from __future__ import annotations

import contextlib
import os

from atoll.host.zygote import GuestProcess


class Command:
    """A command that runs inside a machine."""

    def __init__(self, process: GuestProcess, *, terminal: bool) -> None:
        self._process = process
        self._terminal = terminal

    @property
    def pid(self) -> int:
        """Its process id on the host."""
        return self._process.pid

    async def wait(self) -> int:
        """Its exit status."""
        return await self._process.wait()

    def signal(self, number: int) -> None:
        """Send a signal to it and, on a terminal, to the foreground group there if it is another's."""
        if self._terminal and (group := _foreground(self.pid)) not in (0, self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, number)
        self._process.signal(number)


def _foreground(pid: int) -> int:
    """The foreground process group of a process's terminal; 0 when it has none or is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return max(0, int(file.read().rpartition(b")")[2].split()[5]))
    except (OSError, ValueError, IndexError):
        return 0
