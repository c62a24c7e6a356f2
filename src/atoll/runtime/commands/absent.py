"""Commands that scripts may know and this release does not carry out: a clear refusal."""

from __future__ import annotations

from atoll.cli.errors import CommandError
from atoll.runtime.call import Call


def run(call: Call) -> int:
    """Refuse."""
    raise CommandError("This command is not available in this release")
