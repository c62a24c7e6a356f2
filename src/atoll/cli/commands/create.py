"""`launch` and `init`: instances from images."""

from __future__ import annotations

import sys

from atoll.cli import terminal
from atoll.cli.commands import image_source
from atoll.cli.errors import CommandError, UsageError
from atoll.client.address import url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from atoll.cli.session import Call
    from atoll.client.server import Server

NO_NETWORK = """
The instance you are starting doesn't have any network attached to it.
  To create a new network, use: lxc network create
  To attach a network to an instance, use: lxc network attach
""".replace("lxc", "atoll")


def init(call: Call) -> None:
    """Create an instance."""
    _create(call)


def launch(call: Call) -> None:
    """Create an instance and start it."""
    server, name = _create(call)
    call.say(f"Starting {name}")
    call.change(server, "PUT", url("instances", name, "state"), {"action": "start", "timeout": -1})


def _create(call: Call) -> tuple[Server, str]:
    """Create the instance the call describes; returns its server and name."""
    image, target = _names(call)
    server, name = call.resolve(target)
    call.say(f"Creating {name}" if name else "Creating the instance")
    body = _body(call, server, name)
    body["source"] = image_source.find(call, server, image) if image else {"type": "none"}
    operation = call.change(server, "POST", url("instances"), body, label="Retrieving image").metadata
    if not name:
        name = _created_name(operation)
        call.say(f"Instance name is: {name}")
    _warn_without_network(call, server, name)
    return server, name


def _names(call: Call) -> tuple[str, str]:
    """The image (empty with --empty) and the instance, each perhaps with a remote."""
    given = call.arguments
    if call.flags.on("empty"):
        if len(given) > 1:
            raise CommandError("--empty cannot be combined with an image name")
        return "", given[0] if given else ""
    if not given:
        raise UsageError(bare=True)
    return given[0], given[1] if len(given) > 1 else ""


def _body(call: Call, server: Server, name: str) -> dict[str, Any]:
    """The request without its source: what standard input says, changed by what the flags say."""
    flags = call.flags
    given = _from_input()
    config: dict[str, str] = given.get("config") or {}
    for pair in flags.every("config"):
        key, equals, value = pair.partition("=")
        if not equals:
            raise CommandError(f"Bad key=value pair: {pair}")
        config[key] = value
    profiles = _profiles(call, given)
    body: dict[str, Any] = {
        "name": name,
        "config": config,
        "devices": _devices(call, server, given.get("devices") or {}, profiles),
        "profiles": profiles,
        "ephemeral": flags.on("ephemeral") or bool(given.get("ephemeral")),
        "description": given.get("description") or "",
        "instance_type": flags.text("type"),
        "type": "virtual-machine" if flags.on("vm") else "container",
    }
    return body


def _from_input() -> dict[str, Any]:
    text = terminal.read_input()
    if not text or not text.strip():
        return {}
    from atoll.cli import yaml_in

    return yaml_in.mapping(text)


def _profiles(call: Call, given: dict[str, Any]) -> list[str] | None:
    """None leaves the choice to the server: its default profile."""
    if call.flags.on("no-profiles"):
        return []
    return call.flags.every("profile") or given.get("profiles")


def _devices(call: Call, server: Server, devices: dict[str, Any], profiles: list[str] | None) -> dict[str, Any]:
    if network := call.flags.text("network"):
        found = _loaded(server, "network", url("networks", network), network)
        nic = {"type": "nic", "name": "eth0"}
        nic |= {"network": network} if found.get("managed") else {"nictype": "macvlan", "parent": network}
        if not found.get("managed") and found.get("type") == "bridge":
            nic["nictype"] = "bridged"
        devices["eth0"] = nic
    if pool := call.flags.text("storage"):
        _loaded(server, "storage pool", url("storage-pools", pool), pool)
        devices["root"] = {"type": "disk", "path": "/", "pool": pool}
    if changes := call.flags.every("device"):
        inherited = _inherited(server, ["default"] if profiles is None else profiles)
        for change in changes:
            _override(devices, inherited, change)
    return devices


def _inherited(server: Server, profiles: list[str]) -> dict[str, Any]:
    """The devices that profiles give, later ones over earlier ones."""
    found: dict[str, Any] = {}
    for name in profiles:
        found |= server.get(url("profiles", name)).get("devices") or {}
    return found


def _loaded(server: Server, what: str, path: str, name: str) -> dict[str, Any]:
    from atoll.client.errors import ServerError

    try:
        found: dict[str, Any] = server.get(path)
    except ServerError as error:
        raise CommandError(f'Failed loading {what} "{name}": {error}') from error
    return found


def _override(devices: dict[str, Any], inherited: dict[str, Any], change: str) -> None:
    """Apply one --device NAME,KEY=VALUE: to the instance's own device, else to a copy of the profiles'."""
    name, comma, pair = change.partition(",")
    key, equals, value = pair.partition("=")
    if not comma or not equals:
        raise CommandError(f'Bad device override syntax, expecting <device>,<key>=<value>: "{change}"')
    devices.setdefault(name, dict(inherited.get(name) or {}))[key] = value


def _created_name(operation: dict[str, Any]) -> str:
    resources = operation.get("resources") or {}
    found = resources.get("instances") or resources.get("containers")
    if not found:
        raise CommandError("Failed to get instance name from the server")
    name: str = found[0].partition("?")[0].rpartition("/")[2]
    return name


def _warn_without_network(call: Call, server: Server, name: str) -> None:
    devices = server.get(url("instances", name)).get("expanded_devices") or {}
    if not call.flags.on("quiet") and not any(device.get("type") == "nic" for device in devices.values()):
        sys.stderr.write(NO_NETWORK + "\n")
