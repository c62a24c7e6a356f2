"""What ends a command early.

    Exception
    ├── CommandError     shown as `Error: …`, exit code 1
    └── UsageError       the same, after the command's help on standard output

`atoll.client.errors` has the errors of the wire; both are turned into text in `atoll.cli.main` alone.
"""

from __future__ import annotations


class CommandError(Exception):
    """A command cannot do what it was asked; the text says why."""


class UsageError(Exception):
    """The number of arguments is wrong. `bare`: there were none, which asks for help rather than being a mistake."""

    def __init__(self, *, bare: bool) -> None:
        super().__init__("Invalid number of arguments")
        self.bare = bare
