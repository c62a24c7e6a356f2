"""Where the daemon lives, and how its own commands reach it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from atoll.client import http1
from atoll.client.server import Server

DEFAULT_DIRECTORY = "/var/lib/atoll"


def directory(environment: Mapping[str, str] = os.environ) -> Path:
    """The state directory: ATOLL_DIR, else LXD_DIR, else /var/lib/atoll."""
    return Path(environment.get("ATOLL_DIR") or environment.get("LXD_DIR") or DEFAULT_DIRECTORY)


def socket_path(environment: Mapping[str, str] = os.environ) -> Path:
    """The daemon's unix socket."""
    return directory(environment) / "unix.socket"


def server(*, debug: bool = False) -> Server:
    """The local daemon, connected to on the first request (Unreachable if it does not run)."""
    path = str(socket_path())
    trace = (lambda line: print(f"debug: {line}", file=sys.stderr)) if debug else None
    return Server(lambda: http1.connect_unix(path), trace=trace)
