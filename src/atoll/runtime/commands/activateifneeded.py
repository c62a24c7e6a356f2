"""`atolld activateifneeded`: wake a socket-activated daemon when there is work for it.

Reads the databases without a daemon, so it stays correct while none runs; the connection itself is what starts one.
"""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

from atoll.client.errors import ClientError
from atoll.domain.paths import Paths
from atoll.runtime import home
from atoll.runtime.call import Call

_LISTENS = "SELECT 1 FROM config WHERE key = 'core.https_address' AND value <> ''"


def _effective(key: str) -> str:
    """SQL for what an instance `i` has of a key: its own value, or that of the last of its profiles that has one."""
    return f"""COALESCE((SELECT value FROM instances_config WHERE instance_id = i.id AND key = '{key}'),
        (SELECT c.value FROM profiles_config c JOIN instances_profiles p ON p.profile_id = c.profile_id
        WHERE p.instance_id = i.id AND c.key = '{key}' ORDER BY p.apply_order DESC LIMIT 1), '')"""


_STARTS = f"""SELECT 1 FROM (SELECT i.id, {_effective("boot.autostart")} AS autostart FROM instances i) i
    WHERE lower(autostart) IN ('true', '1', 'yes', 'on') OR (autostart = '' AND EXISTS (SELECT 1 FROM instances_config
    WHERE instance_id = i.id AND key = 'volatile.last_state.power' AND value = 'RUNNING'))"""
_TAKES_SNAPSHOTS = f"SELECT 1 FROM instances i WHERE {_effective('snapshots.schedule')} <> ''"
_TAKES_VOLUME_SNAPSHOTS = """SELECT 1 FROM storage_volumes_config c JOIN storage_volumes v ON v.id = c.storage_volume_id
    WHERE c.key = 'snapshots.schedule' AND c.value <> '' AND v.type = 'custom'"""

_REASONS = (
    ("Daemon has core.https_address set", "local", _LISTENS),
    ("Daemon has auto-started instances", "shared", _STARTS),
    ("Daemon has scheduled instance snapshots", "shared", _TAKES_SNAPSHOTS),
    ("Daemon has scheduled volume snapshots", "shared", _TAKES_VOLUME_SNAPSHOTS),
)
"""What there may be to do, and where the question is asked; scripts look for these words."""


def run(call: Call) -> int:
    """Connect when needed. Never fails for a daemon that does not come: the init system reports that."""
    reason = needed(home.directory())
    if call.flags.on("debug"):
        print(f"{reason}, activating..." if reason else "No need to start the daemon now", file=sys.stderr)
    if reason is None:
        return 0
    server = call.server()
    try:
        server.get("/1.0")
    except ClientError:
        return 0
    finally:
        server.close()
    return 0


def needed(directory: Path) -> str | None:
    """Why the daemon of this directory has something to do; None if it has not."""
    paths = Paths(directory)
    databases = {"local": paths.local_database, "shared": paths.global_database}
    return next((reason for reason, which, query in _REASONS if _any(databases[which], query)), None)


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
