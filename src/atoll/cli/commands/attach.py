"""`attach`, `detach` and their likes for profiles, of `network` and of `storage volume`: devices by what they lead to."""

from __future__ import annotations

from atoll.cli.commands.volumes import Volume
from atoll.cli.device_owner import Owner
from atoll.cli.errors import CommandError
from atoll.client.address import url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from atoll.cli.session import Call
    from atoll.client.server import Server


def attach_network(call: Call) -> None:
    """Give an instance or a profile an interface in a network."""
    server, network = call.required(call.arguments[0], "network name")
    name, interface = [*call.arguments[2:], "", ""][:2]
    device = _interface(server, network)
    if interface:
        device["name"] = interface
    _add(_owner(call, server, call.arguments[1]), name or network, device)


def detach_network(call: Call) -> None:
    """Take an interface in a network from an instance or a profile."""
    server, network = call.required(call.arguments[0], "network name")
    owner = _owner(call, server, call.arguments[1])

    def leads_there(device: dict[str, str]) -> bool:
        return device.get("type") == "nic" and network in (device.get("network"), device.get("parent"))

    name = call.arguments[2] if len(call.arguments) > 2 else _only(owner, leads_there, "network")
    if name in owner.devices and not leads_there(owner.devices[name]):
        raise CommandError("The specified device doesn't match the network")
    _remove(owner, name)


def attach_volume(call: Call) -> None:
    """Give an instance or a profile a volume as a disk."""
    volume = Volume(call)
    volume.need_custom("attached to instances")
    extra = call.arguments[3:]
    name = extra[0] if len(extra) == 2 else volume.name
    device = {"type": "disk", "pool": volume.pool, "source": volume.name}
    if extra:
        device["path"] = extra[-1]
    _add(_owner(call, volume.server, call.arguments[2]), name, device)


def detach_volume(call: Call) -> None:
    """Take a volume from an instance or a profile."""
    volume = Volume(call)
    owner = _owner(call, volume.server, call.arguments[2])

    def leads_there(device: dict[str, str]) -> bool:
        return device.get("type") == "disk" and (device.get("pool"), device.get("source")) == (volume.pool, volume.name)

    _remove(owner, call.arguments[3] if len(call.arguments) > 3 else _only(owner, leads_there, "storage volume"))


def _owner(call: Call, server: Server, name: str) -> Owner:
    return Owner(call, server, name, is_profile=call.path.endswith("-profile"))


def _interface(server: Server, network: str) -> dict[str, str]:
    """The device of an interface in a network, which may be one that the server does not manage."""
    found = server.get(url("networks", network))
    if found["managed"]:
        return {"type": "nic", "network": network}
    return {"type": "nic", "nictype": "bridged" if found["type"] == "bridge" else "macvlan", "parent": found["name"]}


def _add(owner: Owner, name: str, device: dict[str, str]) -> None:
    if name in owner.devices:
        raise CommandError(f"Device already exists: {name}")
    owner.devices[name] = device
    owner.save()


def _remove(owner: Owner, name: str) -> None:
    if name not in owner.devices:
        raise CommandError("The specified device doesn't exist")
    del owner.devices[name]
    owner.save()


def _only(owner: Owner, leads_there: Callable[[dict[str, str]], bool], what: str) -> str:
    """The name of the one device that leads there."""
    found = [name for name, device in owner.devices.items() if leads_there(device)]
    if not found:
        raise CommandError(f"No device found for this {what}")
    if len(found) > 1:
        raise CommandError("More than one device matches, specify the device name")
    return found[0]
