"""`config get|set|unset|show|edit`, of instances and of the server."""

from __future__ import annotations

import sys

from atoll.cli import entity
from atoll.client.address import url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from atoll.cli.session import Call
    from atoll.client.server import Server

_FIELDS = ("architecture", "config", "devices", "ephemeral", "profiles", "stateful", "description")
INSTANCE = entity.Entity(show=_FIELDS, put=_FIELDS)
SNAPSHOT = entity.Entity(
    show=(
        "expires_at", "architecture", "config", "created_at", "devices", "ephemeral", "expanded_config",
        "expanded_devices", "last_used_at", "name", "profiles", "stateful", "size",
    ),
    put=("expires_at",),
)  # fmt: skip
SNAPSHOT_IN_EDITOR = entity.Entity(
    show=tuple(field for field in SNAPSHOT.show if not field.startswith("expanded_")), put=SNAPSHOT.put
)
SERVER = entity.Entity(show=("config",), put=("config",))


def instance_path(name: str) -> tuple[entity.Entity, str]:
    """The kind and the path of an instance, or of a snapshot when the name is "instance/snapshot"."""
    instance, slash, snapshot = name.partition("/")
    if slash:
        return SNAPSHOT, url("instances", instance, "snapshots", snapshot)
    return INSTANCE, url("instances", name)


def _object(call: Call, text: str) -> tuple[Server, entity.Entity, str]:
    """The server, kind and path of "[remote:][instance]"; without an instance, the server itself."""
    server, name = call.resolve(text)
    return (server, *instance_path(name)) if name else (server, SERVER, "/1.0")


def get(call: Call) -> None:
    """Print one value."""
    *place, key = call.arguments
    server, kind, path = _object(call, place[0] if place else "")
    value = server.get(path)
    config = value.get("expanded_config") if call.flags.on("expanded") and kind is not SERVER else value.get("config")
    sys.stdout.write(f"{(config or {}).get(key, '')}\n")


def set_(call: Call) -> None:
    """Set values."""
    words = call.arguments
    of_server = "=" in words[0] or (len(words) == 2 and "=" not in words[1])
    if len(words) == 1 and not of_server:
        from atoll.cli.errors import UsageError

        raise UsageError(bare=False)
    server, kind, path = _object(call, "" if of_server else words[0])
    entity.set_keys(call, kind, server, path, entity.pairs(words if of_server else words[1:]))


def unset(call: Call) -> None:
    """Take a value away."""
    *place, key = call.arguments
    server, kind, path = _object(call, place[0] if place else "")
    if kind is SERVER:
        entity.set_keys(call, kind, server, path, {key: ""})
    else:
        entity.unset_key(call, kind, server, path, key, strict=True)


def show(call: Call) -> None:
    """Print the configuration."""
    server, kind, path = _object(call, call.arguments[0] if call.arguments else "")
    value: dict[str, Any] = server.get(path)
    if kind is not SERVER and call.flags.on("expanded"):
        value["config"], value["devices"] = value["expanded_config"], value["expanded_devices"]
    entity.print_yaml(entity.ordered(value, kind.show))


def edit(call: Call) -> None:
    """Change the configuration in an editor, or by a file on standard input."""
    server, kind, path = _object(call, call.arguments[0] if call.arguments else "")
    entity.edit(call, SNAPSHOT_IN_EDITOR if kind is SNAPSHOT else kind, server, path, HELP)


HELP = """### This is a YAML representation of the configuration.
### Any line starting with a '# will be ignored.
###
### Fields that only the server can change are left out.
"""
