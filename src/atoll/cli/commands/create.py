"""`launch` and `init`: instances from images."""

from __future__ import annotations

import sys

from atoll.cli import terminal
from atoll.cli.commands import image_remote, image_source, new_instance
from atoll.cli.errors import CommandError, UsageError
from atoll.client.address import url
from atoll.client.errors import OperationFailed, ServerError

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


def launch(call: Call) -> int:
    """Create an instance and start it."""
    server, name = _create(call)
    call.say(f"Starting {name}")
    call.change(server, "PUT", url("instances", name, "state"), {"action": "start", "timeout": -1})
    if kind := call.flags.text("console"):
        from atoll.cli.commands import console

        return console.attach(server, name, kind)
    if conditions := call.flags.every("wait"):
        from atoll.cli.commands import wait

        wait.until(call, server, name, conditions)
    return 0


def _create(call: Call) -> tuple[Server, str]:
    """Create the instance the call describes; returns its server and name."""
    image, target = _names(call)
    server, name = call.resolve(target)
    call.say(f"Creating {name}" if name else "Creating the instance")
    body = _body(call, server, name)
    operation = _retrieve(call, server, body, image, target)
    if not name:
        name = new_instance.created_name(operation)
        call.say(f"Instance name is: {name}")
    _warn_without_network(call, server, name)
    return server, name


def _retrieve(call: Call, server: Server, body: dict[str, Any], image: str, target: str) -> dict[str, Any]:
    """Have the instance made; returns the ended operation. What an image server did not give is built where its name says how."""
    name = call.config.split(image)[1]
    try:
        return call.wait(server, _begin(call, server, body, image, target), "Retrieving image")
    except OperationFailed as error:
        if not image or not image_remote.is_stream(call, image) or not image_source.can_build(name):
            raise
        sys.stderr.write(f"{error}\n")
    return call.wait(server, _ask(server, body, image_source.built(call, server, name)), "Retrieving image")


def _begin(call: Call, server: Server, body: dict[str, Any], image: str, target: str) -> str:
    """Ask for the instance; returns the operation. The server looks for the alias itself, which saves a request; an image that
    has to be found or built otherwise is seen to when it has not found one."""
    if image and image_remote.is_elsewhere(call, image, target) and not image_remote.is_stream(call, image):
        return _ask(server, body, image_remote.source(call, image))
    name = call.config.split(image)[1]
    try:
        return _ask(server, body, {"type": "image", "alias": name} if image else {"type": "none"})
    except ServerError:
        if not image or image_source.alias_target(server, name) is not None:
            raise
    return _ask(server, body, image_source.find_unnamed(call, server, image))


def _ask(server: Server, body: dict[str, Any], source: dict[str, Any]) -> str:
    return server.request("POST", url("instances"), body | {"source": source}).operation


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
    profiles = _profiles(call, given)
    body: dict[str, Any] = {
        "name": name,
        "config": (given.get("config") or {}) | new_instance.config(flags),
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
            new_instance.override(devices, inherited, change)
    return devices


def _inherited(server: Server, profiles: list[str]) -> dict[str, Any]:
    """The devices that profiles give, later ones over earlier ones."""
    found: dict[str, Any] = {}
    for name in profiles:
        found |= server.get(url("profiles", name)).get("devices") or {}
    return found


def _loaded(server: Server, what: str, path: str, name: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = server.get(path)
    except ServerError as error:
        raise CommandError(f'Failed loading {what} "{name}": {error}') from error
    return found


def _warn_without_network(call: Call, server: Server, name: str) -> None:
    devices = server.get(url("instances", name)).get("expanded_devices") or {}
    if not call.flags.on("quiet") and not any(device.get("type") == "nic" for device in devices.values()):
        sys.stderr.write(NO_NETWORK + "\n")
