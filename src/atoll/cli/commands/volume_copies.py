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
FILE_KINDS = {"backup": "custom_volume_backup", "iso": "custom_volume_iso", "tar": "import_custom_volume_tar"}
"""By type, the API extension that brings it."""


class _Ends:
    """The servers, and the source and the target as pool, volume and snapshot of "[<remote>:]<pool>/<volume>[/<snapshot>]"."""

    def __init__(self, call: Call) -> None:
        self.mode = call.flags.text("mode")
        if self.mode not in MODES:
            raise CommandError(f"Invalid transfer mode: {self.mode}")
        self.remotes = [call.config.split(argument)[0] for argument in call.arguments]
        self.server: Server
        self.server, source = call.required(call.arguments[0], "source volume name")
        _, target = call.required(call.arguments[1], "target volume name")
        self.pool, self.name, self.snapshot = _parts(source, "source")
        self.target_pool, self.target_name, snapshot = _parts(target, "target")
        if snapshot:
            raise CommandError("Cannot copy or move a volume to a snapshot")

    @property
    def is_elsewhere(self) -> bool:
        """Whether the target is another server."""
        return self.remotes[0] != self.remotes[1]

    @property
    def volume(self) -> tuple[str, ...]:
        """Where the source is."""
        return "storage-pools", self.pool, "volumes", "custom", self.name

    @property
    def subject(self) -> str:
        """The address of what is copied."""
        return url(*self.volume, *(("snapshots", self.snapshot) if self.snapshot else ()))


def _parts(text: str, what: str) -> tuple[str, str, str]:
    pool, _, rest = text.partition("/")
    name, _, snapshot = rest.partition("/")
    if not pool or not name:
        raise CommandError(f"No storage pool for {what} volume specified")
    return pool, name, snapshot


def copy(call: Call) -> None:
    """Copy a volume, or make one of a snapshot; with --refresh bring a copy up to date."""
    ends = _Ends(call)
    _copy(call, ends, "Copying the storage volume")
    call.say("Storage volume copied successfully!")


def _copy(call: Call, ends: _Ends, label: str) -> None:
    found = ends.server.get(ends.subject)
    body: dict[str, Any] = {field: found[field] for field in FIELDS if field in found}
    body |= {"name": ends.target_name, "type": "custom"}
    only = call.flags.on("volume-only")
    body["source"] = {"name": ends.name, "pool": ends.pool, "volume_only": only, "refresh": call.flags.on("refresh")}
    project = call.flags.text("target-project")
    place = url("storage-pools", ends.target_pool, "volumes", "custom", project=project)
    if ends.is_elsewhere:
        from atoll.cli.commands.migrate import Transfer

        offer = {"pool": ends.pool, "volume_only": only}
        Transfer(call, ends.remotes[0], ends.subject, ends.remotes[1], label=label).run(place, body, offer, mode=ends.mode)
        return
    body["source"] |= {"type": "copy", "name": f"{ends.name}/{ends.snapshot}" if ends.snapshot else ends.name}
    if project:
        body["source"]["project"] = ends.server.project or DEFAULT_PROJECT
    call.change(ends.server, "POST", place, body, label=label)


def move(call: Call) -> None:
    """Move a volume to another pool, project or server, or give it another name."""
    ends = _Ends(call)
    if ends.snapshot:
        raise CommandError("Only volumes can be moved, not snapshots")
    label = "Moving the storage volume"
    if ends.is_elsewhere:
        _copy(call, ends, label)
        call.change(ends.server, "DELETE", ends.subject)
    else:
        body = {"name": ends.target_name, "pool": ends.target_pool, "project": call.flags.text("target-project")}
        call.change(ends.server, "POST", url(*ends.volume), body, label=label)
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
    """Make a volume of a file ("-": standard input)."""
    server, pool = call.required(call.arguments[0], "pool name")
    file, name = [*call.arguments[1:], ""][:2]
    kind = call.flags.text("type") or ("iso" if file.endswith(".iso") else "backup")
    if kind not in FILE_KINDS:
        raise CommandError(f"Invalid type of file: {kind}")
    if kind != "backup" and not name:
        raise CommandError("Importing a file of this type requires a volume name")
    headers = {"Content-Type": "application/octet-stream"} | ({"X-LXD-name": name} if name else {})
    if kind != "backup":
        if FILE_KINDS[kind] not in server.get("/1.0")["api_extensions"]:
            raise CommandError(f'The server is missing the required "{FILE_KINDS[kind]}" API extension')
        headers["X-LXD-type"] = kind
    size = None if file == "-" else os.path.getsize(file)
    body = transfer.contents("/dev/stdin" if file == "-" else file)
    path = url("storage-pools", pool, "volumes", "custom", target=call.flags.text("target"))
    transfer.upload(call, server, path, headers, body, size, "Importing custom volume")
