"""`storage volume`: volumes of a pool. Names are those of custom volumes unless they begin with another type: container/c1."""

from __future__ import annotations

import sys

from atoll.cli import entity, output, times
from atoll.cli.errors import CommandError
from atoll.client.address import url
from atoll.client.errors import ServerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from atoll.cli.session import Call
    from atoll.client.server import Server

_FIELDS = ("config", "description", "name", "type", "used_by", "location", "content_type", "project", "created_at")
VOLUME = entity.Entity(show=_FIELDS, put=("config", "description"))
SNAPSHOT = entity.Entity(
    show=("description", "expires_at", "name", "config", "content_type", "created_at"), put=("description", "expires_at")
)
TYPES = ("custom", "container", "virtual-machine", "image")
HELP = """### This is a YAML representation of a storage volume.
### Any line starting with a '# will be ignored.
###
### Note that only the configuration and the description can be changed.
"""


class Volume:
    """The volume (or its snapshot) a call names by pool and [type/]volume[/snapshot]."""

    def __init__(self, call: Call) -> None:
        self.server: Server
        self.server, self.pool = call.required(call.arguments[0], "pool name")
        self.shown = call.arguments[1]
        self.type, name = "custom", self.shown
        first, slash, rest = name.partition("/")
        if slash and first in TYPES:
            self.type, name = first, rest
        self.name, _, self.snapshot = name.partition("/")
        self.volume_path = url("storage-pools", self.pool, "volumes", self.type, self.name)
        snapshot = ("snapshots", self.snapshot) if self.snapshot else ()
        self.path = url("storage-pools", self.pool, "volumes", self.type, self.name, *snapshot)
        self.kind = SNAPSHOT if self.snapshot else VOLUME

    def need_custom(self, what: str) -> None:
        """Refuse for volumes that belong to an instance or image."""
        if self.type != "custom":
            raise CommandError(f'Only "custom" volumes can be {what}')


def list_(call: Call) -> None:
    """List the volumes of a pool."""
    server, pool = call.required(call.arguments[0], "pool name")
    flags = call.flags
    everywhere = "true" if flags.on("all-projects") else ""
    found: list[dict[str, Any]] = server.get(
        url("storage-pools", pool, "volumes", recursion="1", all_projects=everywhere)
    ) or []  # fmt: skip
    found = [row for row in found if _matches(row, call.arguments[1:])]
    found.sort(key=lambda row: (row["type"], output.natural(row["name"])))
    letters = flags.text("columns")
    if not flags.given("columns"):
        letters = letters if everywhere else letters.replace("e", "")
        clustered = any(row.get("location") not in (None, "", "none") for row in found)
        letters = letters if clustered else letters.replace("L", "")
    rows = [[_cell(server, pool, row, letter) for letter in _checked(letters)] for row in found]
    header = [HEADERS[letter] for letter in _checked(letters)]
    sys.stdout.write(output.render(output.check_format(flags.text("format")), header, rows, found))


HEADERS = {
    "c": "CONTENT-TYPE",
    "d": "DESCRIPTION",
    "e": "PROJECT",
    "L": "LOCATION",
    "n": "NAME",
    "t": "TYPE",
    "u": "USED BY",
    "U": "USAGE",
}
_PLAIN = {"c": "content_type", "d": "description", "e": "project", "L": "location", "n": "name"}


def _checked(letters: str) -> str:
    letters = letters.replace(",", "")
    for letter in letters:
        if letter not in HEADERS:
            raise CommandError(f"Unknown column shorthand char '{letter}' in '{letters}'")
    return letters


def _cell(server: Server, pool: str, row: dict[str, Any], letter: str) -> str:
    if letter in _PLAIN:
        return str(row.get(_PLAIN[letter]) or "")
    if letter == "t":
        return f"{row['type']} (snapshot)" if "/" in row["name"] else str(row["type"])
    if letter == "u":
        return str(len(row.get("used_by") or ()))
    if "/" in row["name"]:
        return ""
    try:
        state = server.get(url("storage-pools", pool, "volumes", row["type"], row["name"], "state"))
    except ServerError:
        return ""  # not every driver can tell
    used = (state.get("usage") or {}).get("used", 0)
    return times.binary_size(used) if used else ""


def _matches(row: dict[str, Any], filters: list[str]) -> bool:
    for word in filters:
        key, equals, value = word.partition("=")
        if equals and str(row.get(key, (row.get("config") or {}).get(key, ""))) != value:
            return False
        if not equals and not row["name"].startswith(word):
            return False
    return True


def show(call: Call) -> None:
    """Print a volume or a snapshot."""
    volume = Volume(call)
    entity.show(volume.kind, volume.server, volume.path)


def info(call: Call) -> None:
    """Show a volume with its usage and snapshots."""
    volume = Volume(call)
    found = volume.server.get(volume.volume_path)
    state = volume.server.get(f"{volume.volume_path}/state")
    sys.stdout.write(f"Name: {found['name']}\n")
    if found.get("description"):
        sys.stdout.write(f"Description: {found['description']}\n")
    sys.stdout.write(f"Type: {found['type']}\nContent type: {found.get('content_type') or 'filesystem'}\n")
    if usage := state.get("usage"):
        sys.stdout.write(f"Usage: {times.binary_size(usage['used'])}\n")
        if usage.get("total"):
            sys.stdout.write(f"Total: {times.binary_size(usage['total'])}\n")
    if snapshots := volume.server.get(f"{volume.volume_path}/snapshots?recursion=1"):
        rows = [[row["name"].rpartition("/")[2], row.get("description") or "", times.minute(row.get("expires_at") or "")]
                for row in snapshots]  # fmt: skip
        sys.stdout.write("\nSnapshots:\n" + output.table(("Name", "Description", "Expires at"), rows))


def create(call: Call) -> None:
    """Create a custom volume."""
    volume = Volume(call)
    body = {
        "name": volume.name,
        "type": "custom",
        "config": entity.key_values(call.arguments[2:]),
        "description": "",
        "content_type": call.flags.text("type"),
    }
    call.change(volume.server, "POST", url("storage-pools", volume.pool, "volumes", "custom"), body)
    call.say(f"Storage volume {volume.name} created")


def delete(call: Call) -> None:
    """Delete a volume or a snapshot."""
    volume = Volume(call)
    call.change(volume.server, "DELETE", volume.path)
    call.say(f"Storage volume {volume.shown} deleted")


def edit(call: Call) -> None:
    """Change a volume or a snapshot."""
    volume = Volume(call)
    entity.edit(call, volume.kind, volume.server, volume.path, HELP)


def get(call: Call) -> None:
    """Print one value."""
    volume = Volume(call)
    entity.get_key(volume.server, volume.path, call.arguments[2], blank=False)


def set_(call: Call) -> None:
    """Set values."""
    volume = Volume(call)
    entity.set_keys(call, VOLUME, volume.server, volume.volume_path, entity.pairs(call.arguments[2:]))


def unset(call: Call) -> None:
    """Take a value away."""
    volume = Volume(call)
    entity.unset_key(call, VOLUME, volume.server, volume.volume_path, call.arguments[2])


def rename(call: Call) -> None:
    """Rename a volume or a snapshot."""
    volume = Volume(call)
    old, new = call.arguments[1], call.arguments[2]
    volume.need_custom("renamed")
    if volume.snapshot:
        parent, slash, new_name = new.partition("/")
        if not slash or parent != volume.name:
            raise CommandError("Invalid new snapshot name, parent must be the same as source")
        call.change(volume.server, "POST", volume.path, {"name": new_name})
        call.say(f'Renamed storage volume snapshot from "{old}" to "{new}"')
        return
    call.change(volume.server, "POST", volume.path, {"name": new})
    call.say(f'Renamed storage volume from "{old}" to "{new}"')


def snapshot(call: Call) -> None:
    """Snapshot a volume; with --reuse in place of a snapshot of the same name."""
    volume = Volume(call)
    volume.need_custom("snapshotted")
    chosen = call.arguments[2] if len(call.arguments) > 2 else ""
    base = ("storage-pools", volume.pool, "volumes", "custom", volume.name, "snapshots")
    if call.flags.on("reuse") and chosen:
        try:
            call.change(volume.server, "DELETE", url(*base, chosen))
        except ServerError as error:
            if error.status != 404:
                raise
    expiry = "0001-01-01T00:00:00Z" if call.flags.on("no-expiry") else None
    call.change(volume.server, "POST", url(*base), {"name": chosen, "expires_at": expiry})


def restore(call: Call) -> None:
    """Put a volume back to the state of a snapshot."""
    volume = Volume(call)
    volume.need_custom("restored")
    answer = volume.server.fetch(volume.volume_path)
    body = {"restore": call.arguments[2]}
    call.change(volume.server, "PUT", volume.volume_path, body, etag=answer.etag)
