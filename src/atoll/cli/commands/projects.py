"""`project`: projects, and the one in use."""

from __future__ import annotations

from atoll.cli import entity, times, verbs
from atoll.client.address import url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from atoll.cli.session import Call

PROJECT = entity.Entity(show=("config", "description", "name", "used_by"), put=("config", "description"))
FEATURES = ("features.images", "features.profiles", "features.storage.volumes", "features.networks")
SIZES = ("disk", "memory")
VERBS = verbs.Verbs(
    PROJECT, noun="project", argument="project", collection="projects",
    changeable="the name is shown but cannot be changed",
)  # fmt: skip


def list_(call: Call) -> None:
    """List projects; the one in use is marked."""
    remote, _ = call.config.split(call.arguments[0] if call.arguments else "")
    current = call.flags.text("project") or call.config.project(remote) or "default"
    found = call.server(remote).get(url("projects", recursion="1")) or []
    rows = []
    for row in found:
        name = row["name"]
        config = row.get("config") or {}
        features = ["YES" if config.get(key) == "true" else "NO" for key in FEATURES]
        shown = f"{name} (current)" if name == current else name
        rows.append([shown, *features, row.get("description") or "", str(len(row.get("used_by") or ()))])
    header = ("NAME", "IMAGES", "PROFILES", "STORAGE VOLUMES", "NETWORKS", "DESCRIPTION", "USED BY")
    entity.print_list(call, header, rows, found, PROJECT)


def create(call: Call) -> None:
    """Create a project."""
    VERBS.make(call, config=entity.key_values(call.flags.every("config")))


def delete(call: Call) -> None:
    """Delete a project; where it was the one in use, the default one is from now on."""
    VERBS.delete(call)
    remote, name = call.config.split(call.arguments[0])
    if call.config.project(remote) == name:
        _use(call, remote, "default")


def switch(call: Call) -> None:
    """Use a project from now on."""
    server, name, path = VERBS.one(call)
    server.get(path)
    _use(call, call.config.split(call.arguments[0])[0], name)


def _use(call: Call, remote: str, name: str) -> None:
    call.config.remotes[remote]["project"] = name
    call.config.save()


def info(call: Call) -> None:
    """Show what a project uses of what it may."""
    server, name, _ = VERBS.one(call)
    state: dict[str, Any] = server.get(url("projects", name, "state"))
    found = state.get("resources") or {}
    rows = []
    for resource, row in found.items():
        limit, usage = (
            times.binary_size(row[key]) if resource in SIZES and row[key] >= 0 else str(row[key]) for key in ("Limit", "Usage")
        )
        rows.append([resource.upper(), "UNLIMITED" if row["Limit"] < 0 else limit, usage])
    entity.print_list(call, ("RESOURCE", "LIMIT", "USAGE"), rows, found)
