"""Apply a preseed to a server, and take everything back when a part of it fails."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from atoll.cli.errors import CommandError
from atoll.client import address
from atoll.client.errors import ClientError, ServerError
from atoll.client.server import Server
from atoll.runtime.init.preseed import Preseed

NOT_FOUND = 404

SECTIONS = (
    # section of the preseed, collection in the API, word in messages, field that cannot be changed later
    ("storage_pools", "storage-pools", "storage pool", "driver"),
    ("projects", "projects", "project", ""),
    ("networks", "networks", "network", "type"),
    ("profiles", "profiles", "profile", ""),
)


def apply(server: Server, preseed: Preseed) -> None:
    """Bring a server to what the preseed says: new objects are created, existing ones updated key by key.

    CommandError naming the object and the server's reason; everything done before it has then been undone, last step first.
    """
    with ExitStack() as undo:
        _apply_config(server, preseed["config"], undo)
        for section, collection, word, fixed in SECTIONS:
            for entry in preseed[section]:
                _Object(server, collection, word, fixed, entry).apply(undo)
        undo.pop_all()


def _apply_config(server: Server, changes: Mapping[str, str], undo: ExitStack) -> None:
    if not changes:
        return
    before = server.get("/1.0")["config"] or {}
    what = "update server configuration"
    _try(server, what, "PUT", "/1.0", {"config": {**before, **changes}})
    undo.callback(_revert, server, what, "PUT", "/1.0", {"config": before})


class _Object:
    """One entry of a section and its counterpart on the server."""

    def __init__(self, server: Server, collection: str, word: str, fixed: str, entry: Mapping[str, Any]) -> None:
        self.server = server
        self.collection = collection
        self.fixed = fixed
        self.entry = entry
        self.title = f'{word} "{entry["name"]}"'
        self.project = entry.get("project", "")

    def apply(self, undo: ExitStack) -> None:
        """Create or update it, with the way back on `undo`."""
        if not self.entry["name"]:
            raise CommandError(f"Failed to create {self.title}: No name provided")
        present = self._present()
        if present is None:
            self._create(undo)
        else:
            self._update(present, undo)

    def _path(self, *names: str) -> str:
        return address.url(self.collection, *names, project=self.project)

    def _present(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self.server.get(self._path(self.entry["name"]))
        except ServerError as error:
            if error.status != NOT_FOUND:
                raise CommandError(f"Failed to retrieve {self.title}: {error}") from error
            return None
        return found

    def _create(self, undo: ExitStack) -> None:
        body = {name: value for name, value in self.entry.items() if name != "project"}
        _try(self.server, f"create {self.title}", "POST", self._path(), body)
        undo.callback(_revert, self.server, f"delete {self.title}", "DELETE", self._path(self.entry["name"]), None)

    def _update(self, present: Mapping[str, Any], undo: ExitStack) -> None:
        wanted = self.entry.get(self.fixed, "")
        if wanted and present[self.fixed] != wanted:
            title = self.title[0].upper() + self.title[1:]
            raise CommandError(f'{title} is of type "{present[self.fixed]}" instead of "{wanted}"')
        path, what = self._path(self.entry["name"]), f"update {self.title}"
        before = {field: present.get(field) for field in ("config", "description", "devices") if field in self.entry}
        _try(self.server, what, "PUT", path, merged(before, self.entry))
        undo.callback(_revert, self.server, what, "PUT", path, before)


def merged(before: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """What an object becomes: its keys, and within a device its keys, overlaid by the entry's; an empty description keeps it."""
    after: dict[str, Any] = {
        "config": {**(before["config"] or {}), **entry["config"]},
        "description": entry["description"] or before["description"] or "",
    }
    if "devices" in entry:
        devices = dict(before["devices"] or {})
        for name, device in entry["devices"].items():
            devices[name] = {**devices.get(name, {}), **device}
        after["devices"] = devices
    return after


def _try(server: Server, what: str, method: str, path: str, body: object) -> None:
    try:
        server.change(method, path, body)
    except ClientError as error:
        raise CommandError(f"Failed to {what}: {error}") from error


def _revert(server: Server, what: str, method: str, path: str, body: object) -> None:
    """One step back. A failure is told and does not keep the other steps from being taken."""
    try:
        server.change(method, path, body)
    except ClientError as error:
        print(f"Warning: could not undo: failed to {what}: {error}", file=sys.stderr)
