"""`copy` and `move`, within a server and between two (see `migrate`)."""

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
LABEL = "Transferring instance"
STOPPED, RUNNING = 102, 103


def copy(call: Call) -> None:
    """Copy an instance, or make one of a snapshot."""
    server, source, name = _ends(call)
    body = _copied(call, server, source)
    body["name"] = name
    body["source"] = _source(call, server, source, body["config"])
    if _is_elsewhere(call):
        _migrate(call, source, body, {} if "/" in source else server.get(url("instances", source)))
        return
    place = url("instances", project=call.flags.text("target-project"), target=call.flags.text("target"))
    call.change(server, "POST", place, body, label=LABEL)


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
    _, name = call.config.split(call.arguments[1])
    return server, source, name or source.partition("/")[0]


def _is_elsewhere(call: Call) -> bool:
    """Whether the second argument names another remote than the first."""
    return len(call.arguments) > 1 and len({call.config.split(argument)[0] for argument in call.arguments[:2]}) > 1


def _migrate(call: Call, source: str, body: dict[str, Any], found: dict[str, Any]) -> None:
    """To the other remote. `found` is the instance; of a running one the processes come too, unless told otherwise."""
    from atoll.cli.commands.migrate import Transfer

    ends = [call.config.split(argument)[0] for argument in call.arguments[:2]]
    live = found.get("status_code") == RUNNING and not call.flags.on("stateless")
    if body["source"]["refresh"]:
        _require(call.server(ends[1]), "container_incremental_copy")
    flags = call.flags
    name, slash, snapshot = source.partition("/")
    subject = url("instances", name, "snapshots", snapshot) if slash else url("instances", name)
    body["source"]["live"] = live
    offer = {key: body["source"][key] for key in ("live", "instance_only", "container_only", "allow_inconsistent")}
    place = url("instances", project=flags.text("target-project"), target=flags.text("target"))
    Transfer(call, ends[0], subject, ends[1], label=LABEL).run(place, body, offer, mode=flags.text("mode"))


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
    """Rename an instance or a snapshot; or move an instance to another pool, project or cluster member.

    The server moves in one piece. What is to have other settings afterwards is copied and then deleted.
    """
    flags = call.flags
    elsewhere = any(flags.text(name) for name in ("storage", "target-project", "target"))
    changed = any(flags.given(name) for name in ("config", "device", "profile", "no-profiles"))
    if len(call.arguments) == 1 and not elsewhere:
        raise UsageError(bare=False)
    if changed and not elsewhere and not _is_elsewhere(call):
        raise CommandError("Can't override configuration or profiles in local rename")
    server, source, name = _ends(call)
    if _is_elsewhere(call):
        _copy_and_delete(call, server, source, name)
    elif not elsewhere:
        instances.rename(call)
    elif changed:
        _copy_and_delete(call, server, source, name)
    else:
        only = flags.on("instance-only")
        body = {"name": name, "migration": True, "live": False, "instance_only": only, "container_only": only}
        body |= {"pool": flags.text("storage"), "project": flags.text("target-project")}
        call.change(server, "POST", url("instances", source, target=flags.text("target")), body, label=LABEL)


def _copy_and_delete(call: Call, server: Server, source: str, name: str) -> None:
    """With all that the instance has of its own, its MAC addresses too: it is to be the same one."""
    found = server.get(url("instances", source))
    abroad = _is_elsewhere(call)
    if (found.get("status_code") or STOPPED) != STOPPED and not abroad:
        raise CommandError("Instance must be stopped to be moved")
    body = _copied(call, server, source)
    body["config"] = (found.get("config") or {}) | body["config"]
    body |= {"name": name, "ephemeral": bool(found.get("ephemeral")), "source": _source(call, server, source, body["config"])}
    if abroad:
        _migrate(call, source, body, found)
    else:
        call.change(server, "POST", url("instances", project=call.flags.text("target-project")), body, label=LABEL)
    _remove(call, server, source)


def _remove(call: Call, server: Server, name: str) -> None:
    """What has been moved is not to run twice; a stop is the end of an ephemeral instance."""
    found = server.get(url("instances", name))
    running = found.get("status_code") == RUNNING
    if running:
        call.change(server, "PUT", url("instances", name, "state"), {"action": "stop", "force": True, "timeout": -1})
    if not (running and found.get("ephemeral")):
        call.change(server, "DELETE", url("instances", name))
