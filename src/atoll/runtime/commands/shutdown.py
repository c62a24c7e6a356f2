"""`atolld shutdown`: stop all instances, then the daemon."""

from __future__ import annotations

import select
import time

from atoll.cli.errors import CommandError
from atoll.client import server as client
from atoll.client.errors import ProtocolError, ServerError, Unreachable
from atoll.client.server import Server
from atoll.runtime.call import Call

PAUSE = 0.05


def run(call: Call) -> int:
    """Return when the daemon is gone; CommandError when it still runs after --timeout seconds (0 or none: wait for ever)."""
    timeout = call.flags.number("timeout")
    deadline = time.monotonic() + timeout if timeout > 0 else None
    server = call.server()
    limit = f"&timeout={timeout}" if timeout > 0 else ""
    server.send("PUT", f"/internal/shutdown?force={int(call.flags.on('force'))}{limit}", {})
    answered = select.select([server.fileno()], [], [], _left(deadline))[0]
    if not answered or not _answer_and_end(server, deadline):
        raise CommandError(f"Atoll still running after {timeout}s timeout")
    return 0


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _answer_and_end(server: Server, deadline: float | None) -> bool:
    """Whether the daemon's socket went away in time, after an answer that was no refusal (ServerError)."""
    try:
        client.decode(server.receive())
    except ProtocolError:
        pass  # it left before the answer did: gone is what was asked for
    server.close()
    while _listens(server):
        if _left(deadline) == 0:
            return False
        time.sleep(PAUSE)
    return True


def _listens(server: Server) -> bool:
    try:
        server.get("/internal/ready")
    except (Unreachable, ProtocolError):
        return False
    except ServerError:
        return True
    finally:
        server.close()
    return True
