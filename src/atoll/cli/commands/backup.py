"""`export` and `import`: instances as backup files."""

from __future__ import annotations

import os
import sys

from atoll.cli.commands import new_instance, transfer
from atoll.cli.errors import CommandError
from atoll.client.address import url
from atoll.client.errors import ServerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from atoll.cli.session import Call
    from atoll.client.server import Server

DEFAULT_NAME = "backup"
LIFETIME = 86400  # seconds after which the server throws a backup away that nobody has fetched
# How files begin, and what they are called for it.
ENDINGS = (
    (b"\x1f\x8b", ".tar.gz"),
    (b"BZh", ".tar.bz2"),
    (b"\xfd7zXZ\x00", ".tar.xz"),
    (b"]\x00\x00", ".tar.lzma"),
    (b"\x28\xb5\x2f\xfd", ".tar.zst"),
    (b"hsqs", ".squashfs"),
)


def export(call: Call) -> None:
    """Fetch a backup into the target ("-": standard output), by default into `backup` with the ending of what came."""
    server, name = call.required(call.arguments[0], "instance name")
    target = call.arguments[1] if len(call.arguments) > 1 else ""
    alone = call.flags.on("instance-only")
    body = {"instance_only": alone, "container_only": alone}
    fetch(call, server, url("instances", name, "backups"), body, target, what="instance")


def fetch(call: Call, server: Server, backups: str, body: dict[str, Any], target: str, *, what: str) -> None:
    """What `export` does, with the backups below that path, of such a thing; `body` is what is asked for besides."""
    if target == "-":
        _export(call, server, backups, body, _write_out, label="", what=what)
        return
    is_device = os.path.exists(target) and not os.path.isfile(target)  # nor is a folder replaced, which opening it tells
    part = target if is_device else f"{target or DEFAULT_NAME}.part"
    try:
        with open(part, "wb") as file:
            _export(call, server, backups, body, file.write, label="Exporting the backup", what=what)
        if part != target:
            os.replace(part, target or DEFAULT_NAME + _ending(part))
    finally:
        if part != target and os.path.exists(part):
            os.unlink(part)
    call.say("Backup exported successfully!")


def _write_out(piece: bytes) -> None:
    """To standard output; CommandError when nobody reads it any more."""
    try:
        sys.stdout.buffer.write(piece)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still in the buffer has to go somewhere
        raise CommandError("The backup's reader has gone") from None


def _export(
    call: Call, server: Server, backups: str, body: dict[str, Any], write: Callable[[bytes], object], *, label: str, what: str
) -> None:
    """Have the server make a backup, fetch it, and have it deleted there."""
    try:
        operation = call.change(server, "POST", backups, _request(call) | body, label=f"Backing up {what}").metadata
    except ServerError as error:
        raise CommandError(f"Create {what} backup: {error}") from error
    path = f"{backups}/{_backup_name(operation)}"
    try:
        transfer.download(call, server, f"{path}/export", write, label)
    finally:
        call.change(server, "DELETE", path)


def _request(call: Call) -> dict[str, Any]:
    import time

    return {
        "name": "",
        "expires_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + LIFETIME)),
        "optimized_storage": call.flags.on("optimized-storage"),
        "compression_algorithm": call.flags.text("compression"),
    }


def _backup_name(operation: dict[str, Any]) -> str:
    """The new backup's name, as it stands in URLs; it was the server's choice."""
    found = (operation.get("resources") or {}).get("backups")
    if not found:
        raise CommandError("Failed to get the backup's name from the server")
    name: str = found[0].partition("?")[0].rpartition("/")[2]
    return name


def _ending(path: str) -> str:
    with open(path, "rb") as file:
        start = file.read(8)
    return next((ending for magic, ending in ENDINGS if start.startswith(magic)), ".tar")


def import_(call: Call) -> None:
    """Make an instance of a backup file ("-": standard input)."""
    words = list(call.arguments)
    remote = words.pop(0) if words[0].endswith(":") and not os.path.exists(words[0]) else ""
    if not words:
        raise CommandError("Missing backup file")
    file, name = [*words, ""][:2]
    server, _ = call.resolve(remote)
    headers = {"Content-Type": "application/octet-stream"}
    headers |= {key: value for key, value in (("X-LXD-name", name), ("X-LXD-pool", call.flags.text("storage"))) if value}
    size = None if file == "-" else os.path.getsize(file)
    body = transfer.contents("/dev/stdin" if file == "-" else file)
    operation = transfer.upload(call, server, url("instances"), headers, body, size, "Importing instance")
    if not name:
        call.say(f"Instance name is: {new_instance.created_name(operation)}")
