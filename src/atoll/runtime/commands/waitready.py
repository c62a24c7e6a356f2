"""`atolld waitready`: wait until the daemon serves and has started what it starts by itself."""

from __future__ import annotations

import time

from atoll.cli.errors import CommandError
from atoll.client.errors import ClientError
from atoll.client.server import Server
from atoll.runtime.call import Call

FIRST_PAUSE = 0.02
LONGEST_PAUSE = 0.5


def run(call: Call) -> int:
    """Wait for at most --timeout seconds (0 or none: for ever); CommandError, with the last answer, when that was too short."""
    timeout = call.flags.number("timeout")
    deadline = time.monotonic() + timeout if timeout > 0 else None
    pause = FIRST_PAUSE
    while (reason := _why_not_ready(call.server())) is not None:
        if deadline is not None and time.monotonic() + pause > deadline:
            raise CommandError(f"Atoll still not running after {timeout}s timeout ({reason})")
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
    return 0


def _why_not_ready(server: Server) -> str | None:
    try:
        server.get("/internal/ready")
    except ClientError as error:
        return str(error)
    finally:
        server.close()
    return None
