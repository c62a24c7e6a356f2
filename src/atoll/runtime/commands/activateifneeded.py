"""`atolld activateifneeded`: wake a socket-activated daemon when there is work for it.

Reads the databases without a daemon, so it stays correct while none runs; the connection itself is what starts one.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from atoll.client.errors import ClientError
from atoll.domain.paths import Paths
from atoll.runtime import home
from atoll.runtime.call import Call

LISTENS = "SELECT 1 FROM config WHERE key = 'core.https_address' AND value <> ''"
STARTS = """SELECT 1 FROM instances_config WHERE (key = 'volatile.last_state.power' AND value = 'RUNNING')
            OR (key = 'boot.autostart' AND value IN ('true', '1', 'yes', 'on'))"""


def run(call: Call) -> int:
    """Connect when needed. Never fails for a daemon that does not come: the init system reports that."""
    if needed(home.directory()):
        server = call.server()
        try:
            server.get("/1.0")
        except ClientError:
            return 0
        finally:
            server.close()
    return 0


def needed(directory: Path) -> bool:
    """Whether the daemon of this directory listens on the network or has instances to start."""
    paths = Paths(directory)
    return _any(paths.local_database, LISTENS) or _any(paths.global_database, STARTS)


def _any(path: Path, query: str) -> bool:
    if not path.exists():
        return False
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    except sqlite3.OperationalError:
        return False
    try:
        return connection.execute(query).fetchone() is not None
    except sqlite3.DatabaseError:
        return True  # a database that cannot be read is the daemon's to report
    finally:
        connection.close()
