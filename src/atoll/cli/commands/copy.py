"""`copy` and `move` within a server."""

from __future__ import annotations

from atoll.cli.commands import instances, new_instance
from atoll.cli.errors import CommandError, UsageError
from atoll.client.address import url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from atoll.cli.session import Call
    from atoll.client.server import Server

MODES = ("pull", "push", "relay")
COPIED = ("architecture", "config", "devices", "ephemeral", "profiles", "stateful", "description")
BASE_IMAGE = "volatile.base_image"
DEFAULT_PROJECT = "default"


def copy(call: Call) -> None:
    """Copy an instance, or make one of a snapshot."""
    server, source, name = _ends(call)
    body = _copied(call, server, source)
    body["name"] = name
    body["source"] = _source(call, server, source, body["config"])
    project = call.flags.text("target-project")
    call.change(server, "POST", url("instances", project=project), body, label="Transferring instance")


def _ends(call: Call) -> tuple[Server, str, str]:
    """The one server, the source and the new name: without one in the call, the instance's own."""
    mode = call.flags.text("mode")
    if mode not in MODES:
        raise CommandError(f"Invalid transfer mode: {mode}")
    server, source = call.resolve(call.arguments[0])
    if not source:
        raise CommandError("You must specify a source instance name")
    if len(call.arguments) == 1:
        return server, source, source.partition("/")[0]
    remote, name = call.config.split(call.arguments[1])
    if remote != call.config.split(call.arguments[0])[0]:
        raise CommandError("Instances cannot be copied or moved between servers yet")
    return server, source, name or source.partition("/")[0]


def _copied(call: Call, server: Server, source: str) -> dict[str, Any]:
    """The source's own settings, changed by what the flags say. What is volatile is the source's alone."""
    flags = call.flags
    config = new_instance.config(flags)
    name, slash, snapshot = source.partition("/")
    found = server.get(url("instances", name, "snapshots", snapshot) if slash else url("instances", name))
    body: dict[str, Any] = {field: found[field] for field in COPIED if field in found}
    body["type"] = found.get("type") or ""
    body["ephemeral"] = flags.on("ephemeral")
    body["config"] = _lasting(found.get("config") or {}) | config
    if flags.on("no-profiles"):
        body["profiles"] = []
    elif flags.given("profile"):
        body["profiles"] = flags.every("profile")
    if flags.on("stateless"):
        body["stateful"] = False
    body["devices"] = _devices(call, found)
    return body


def _lasting(config: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in config.items() if key == BASE_IMAGE or not key.startswith("volatile.")}


def _devices(call: Call, found: dict[str, Any]) -> dict[str, Any]:
    devices: dict[str, Any] = found.get("devices") or {}
    if pool := call.flags.text("storage"):
        roots = [name for name, device in devices.items() if device.get("type") == "disk" and device.get("path") == "/"]
        devices[roots[0] if roots else "root"] = {
            "type": "disk", "path": "/", **(devices[roots[0]] if roots else {}), "pool": pool,
        }  # fmt: skip
    for change in call.flags.every("device"):
        new_instance.override(devices, found.get("expanded_devices") or {}, change)
    return devices


def _source(call: Call, server: Server, source: str, config: dict[str, str]) -> dict[str, Any]:
    flags = call.flags
    if flags.on("refresh"):
        _require(server, "container_incremental_copy")
    only = flags.on("instance-only")
    body = {"type": "copy", "source": source, "base-image": config.get(BASE_IMAGE, ""), "refresh": flags.on("refresh")}
    body |= {"instance_only": only, "container_only": only, "allow_inconsistent": flags.on("allow-inconsistent")}
    if flags.text("target-project"):
        body["project"] = server.project or DEFAULT_PROJECT
    return body


def _require(server: Server, extension: str) -> None:
    if extension not in server.get("/1.0")["api_extensions"]:
        raise CommandError(f'The target server is missing the required "{extension}" API extension')


def move(call: Call) -> None:
    """Rename an instance or a snapshot; or have the server move an instance to another pool, project or cluster member."""
    flags = call.flags
    elsewhere = any(flags.text(name) for name in ("storage", "target-project", "target"))
    if len(call.arguments) == 1 and not elsewhere:
        raise UsageError(bare=False)
    if any(flags.given(name) for name in ("config", "device", "profile", "no-profiles")):
        raise CommandError("Can't override configuration or profiles in local rename")
    server, source, name = _ends(call)
    if not elsewhere:
        instances.rename(call)
        return
    only = flags.on("instance-only")
    body = {"name": name, "migration": True, "live": False, "instance_only": only, "container_only": only}
    body |= {"pool": flags.text("storage"), "project": flags.text("target-project")}
    call.change(server, "POST", url("instances", source), body, label="Transferring instance")
