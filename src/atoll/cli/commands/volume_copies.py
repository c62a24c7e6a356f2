"""`storage volume copy`, `move`, `export` and `import`: custom volumes as wholes."""

from __future__ import annotations

import os

from atoll.cli.commands import backup, transfer
from atoll.cli.commands.copy import DEFAULT_PROJECT, MODES
from atoll.cli.commands.volumes import Volume
from atoll.cli.errors import CommandError
from atoll.client.address import url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from atoll.cli.session import Call
    from atoll.client.server import Server

FIELDS = ("config", "description", "content_type")


class _Ends:
    """The one server, and the source and the target as pool, volume and snapshot of "[<remote>:]<pool>/<volume>[/<snapshot>]"."""

    def __init__(self, call: Call) -> None:
        mode = call.flags.text("mode")
        if mode not in MODES:
            raise CommandError(f"Invalid transfer mode: {mode}")
        remotes = [call.config.split(argument)[0] for argument in call.arguments]
        if remotes[0] != remotes[1]:
            raise CommandError("Volumes cannot be copied or moved between servers yet")
        self.server: Server
        self.server, source = call.required(call.arguments[0], "source volume name")
        _, target = call.required(call.arguments[1], "target volume name")
        self.pool, self.name, self.snapshot = _parts(source, "source")
        self.target_pool, self.target_name, snapshot = _parts(target, "target")
        if snapshot:
            raise CommandError("Cannot copy or move a volume to a snapshot")

    @property
    def volume(self) -> tuple[str, ...]:
        """Where the source is."""
        return "storage-pools", self.pool, "volumes", "custom", self.name


def _parts(text: str, what: str) -> tuple[str, str, str]:
    pool, _, rest = text.partition("/")
    name, _, snapshot = rest.partition("/")
    if not pool or not name:
        raise CommandError(f"No storage pool for {what} volume specified")
    return pool, name, snapshot


def copy(call: Call) -> None:
    """Copy a volume, or make one of a snapshot; with --refresh bring a copy up to date."""
    ends = _Ends(call)
    snapshot = ("snapshots", ends.snapshot) if ends.snapshot else ()
    found = ends.server.get(url(*ends.volume, *snapshot))
    body: dict[str, Any] = {field: found[field] for field in FIELDS if field in found}
    body |= {"name": ends.target_name, "type": "custom"}
    body["source"] = {
        "type": "copy",
        "name": f"{ends.name}/{ends.snapshot}" if ends.snapshot else ends.name,
        "pool": ends.pool,
        "volume_only": call.flags.on("volume-only"),
        "refresh": call.flags.on("refresh"),
    }
    project = call.flags.text("target-project")
    if project:
        body["source"]["project"] = ends.server.project or DEFAULT_PROJECT
    place = url("storage-pools", ends.target_pool, "volumes", "custom", project=project)
    call.change(ends.server, "POST", place, body, label="Copying the storage volume")
    call.say("Storage volume copied successfully!")


def move(call: Call) -> None:
    """Move a volume to another pool or project, or give it another name."""
    ends = _Ends(call)
    if ends.snapshot:
        raise CommandError("Only volumes can be moved, not snapshots")
    body = {"name": ends.target_name, "pool": ends.target_pool, "project": call.flags.text("target-project")}
    call.change(ends.server, "POST", url(*ends.volume), body, label="Moving the storage volume")
    call.say("Storage volume moved successfully!")


def export(call: Call) -> None:
    """Fetch a backup of a volume."""
    volume = Volume(call)
    volume.need_custom("exported")
    if volume.snapshot:
        raise CommandError("Only volumes can be exported, not snapshots")
    target = call.arguments[2] if len(call.arguments) > 2 else ""
    body = {"volume_only": call.flags.on("volume-only")}
    backup.fetch(call, volume.server, f"{volume.volume_path}/backups", body, target, what="storage volume")


def import_(call: Call) -> None:
    """Make a volume of a backup file ("-": standard input)."""
    server, pool = call.required(call.arguments[0], "pool name")
    file, name = [*call.arguments[1:], ""][:2]
    headers = {"Content-Type": "application/octet-stream"} | ({"X-LXD-name": name} if name else {})
    size = None if file == "-" else os.path.getsize(file)
    body = transfer.contents("/dev/stdin" if file == "-" else file)
    path = url("storage-pools", pool, "volumes", "custom", target=call.flags.text("target"))
    transfer.upload(call, server, path, headers, body, size, "Importing custom volume")
