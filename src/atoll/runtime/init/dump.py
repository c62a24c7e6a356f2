"""`init --dump`: a server's present configuration as a preseed that would bring another one there."""

from __future__ import annotations

from typing import Any

from atoll.client.server import Server
from atoll.runtime.init.preseed import FIELDS, Preseed


def collect(server: Server) -> Preseed:
    """Read the configuration, the managed networks, pools, profiles and projects."""
    networks = [row for row in server.get("/1.0/networks?recursion=1") if row["managed"]]
    return {
        "config": server.get("/1.0")["config"] or {},
        "networks": [{**_row("networks", row), "project": row.get("project", "default")} for row in networks],
        "storage_pools": [_row("storage_pools", row) for row in server.get("/1.0/storage-pools?recursion=1")],
        "profiles": [_row("profiles", row) for row in server.get("/1.0/profiles?recursion=1")],
        "projects": [_row("projects", row) for row in server.get("/1.0/projects?recursion=1")],
    }


def _row(section: str, row: dict[str, Any]) -> dict[str, Any]:
    return {field: row[field] for field in FIELDS[section] if field in row}
