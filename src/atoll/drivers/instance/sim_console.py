"""The console of a simulated machine: a pty of the host's, whose line discipline echoes what is typed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from atoll.host import streams

PROMPT = b"login: "


def log(log_dir: Path) -> Path:
    """Where it is kept what consoles showed."""
    return log_dir / "console.log"


class Console:
    """A hold on it; whoever gets one is shown a prompt."""

    def __init__(self, log: Path, closed: Callable[[], None]) -> None:
        self._closed = closed
        self._master, self._slave = os.openpty()
        os.write(self._slave, PROMPT)
        with log.open("ab") as file:
            file.write(PROMPT)

    @property
    def fd(self) -> int:
        """The master."""
        return self._master

    async def resize(self, *, width: int, height: int) -> None:
        """Set the size of the pty."""
        streams.set_window(self._master, width=width, height=height)

    def hang_up(self) -> None:
        """The machine has ended."""
        if self._slave >= 0:
            os.close(self._slave)
            self._slave = -1

    def close(self) -> None:
        """Let go of it."""
        if self._master >= 0:
            self.hang_up()
            os.close(self._master)
            self._master = -1
            self._closed()
