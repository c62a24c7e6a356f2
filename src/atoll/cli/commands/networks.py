"""`network`: networks, and the interfaces that instances and profiles have in them."""

from __future__ import annotations

import sys

from atoll.cli import entity, times, verbs
from atoll.cli.errors import CommandError
from atoll.client.address import url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from atoll.cli.session import Call
    from atoll.client.server import Server

NETWORK = entity.Entity(
    show=("config", "description", "name", "type", "used_by", "managed", "status", "locations"),
    put=("config", "description"),
)
_VERBS = verbs.Verbs(
    NETWORK, noun="network", argument="network", collection="networks",
    changeable="only the configuration and the description can be changed", blank=False,
)  # fmt: skip
show = _VERBS.show
delete = _VERBS.delete
edit = _VERBS.edit
get = _VERBS.get
set_ = _VERBS.set_
unset = _VERBS.unset
rename = _VERBS.rename


def list_(call: Call) -> None:
    """List networks."""
    server, _ = call.split_remote(call.arguments)
    found = server.get(url("networks", recursion="1")) or []
    rows = []
    for row in found:
        if row["type"] in ("loopback", "unknown"):
            continue
        config = row.get("config") or {}
        managed = "YES" if row["managed"] else "NO"
        addresses = [config.get("ipv4.address", ""), config.get("ipv6.address", "")]
        used = str(len(row.get("used_by") or ()))
        state = (row.get("status") or "").upper()
        rows.append([row["name"], row["type"], managed, *addresses, row.get("description") or "", used, state])
    header = ("NAME", "TYPE", "MANAGED", "IPV4", "IPV6", "DESCRIPTION", "USED BY", "STATE")
    entity.print_list(call, header, rows, found, NETWORK)


def create(call: Call) -> None:
    """Create a network."""
    server, name, _ = _VERBS.one(call)
    config = entity.key_values(call.arguments[1:])
    body = {"name": name, "type": call.flags.text("type"), "config": config, "description": ""}
    server.request("POST", url("networks"), body)
    pending = call.flags.text("target")
    call.say(f"Network {name} pending on member {pending}" if pending else f"Network {name} created")


def info(call: Call) -> None:
    """Show the run-time state of a network."""
    server, name, _ = _VERBS.one(call)
    state = server.get(url("networks", name, "state"))
    sys.stdout.write("\n".join(_info(name, state)) + "\n")


def _info(name: str, state: dict[str, Any]) -> Iterator[str]:
    yield f"Name: {name}"
    yield f"MAC address: {state.get('hwaddr', '')}"
    yield f"MTU: {state.get('mtu', 0)}"
    yield f"State: {state.get('state', '')}"
    yield f"Type: {state.get('type', '')}"
    if addresses := state.get("addresses"):
        yield "\nIP addresses:"
        for row in addresses:
            yield f"  {row['family']}\t{row['address']}/{row['netmask']} ({row['scope']})"
    if counters := state.get("counters"):
        yield "\nNetwork usage:"
        yield f"  Bytes received: {times.decimal_size(counters['bytes_received'])}"
        yield f"  Bytes sent: {times.decimal_size(counters['bytes_sent'])}"
        yield f"  Packets received: {counters['packets_received']}"
        yield f"  Packets sent: {counters['packets_sent']}"
    if bridge := state.get("bridge"):
        yield "\nBridge:"
        yield from _bridge(bridge)


def _bridge(bridge: dict[str, Any]) -> Iterator[str]:
    yield f"  ID: {bridge['id']}"
    yield f"  STP: {'true' if bridge['stp'] else 'false'}"
    yield f"  Forward delay: {bridge['forward_delay']}"
    yield f"  Default VLAN ID: {bridge['vlan_default']}"
    yield f"  VLAN filtering: {'true' if bridge['vlan_filtering'] else 'false'}"
    yield f"  Upper devices: {', '.join(bridge.get('upper_devices') or ())}"


def list_leases(call: Call) -> None:
    """List the addresses a network has given out."""
    server, name, _ = _VERBS.one(call)
    found = server.get(url("networks", name, "leases")) or []
    fields = ("hostname", "hwaddr", "address")
    rows = [[*(row.get(key) or "" for key in fields), (row.get("type") or "").upper()] for row in found]
    entity.print_list(call, ("HOSTNAME", "MAC ADDRESS", "IP ADDRESS", "TYPE"), rows, found)


def _owner(call: Call, kind: str) -> tuple[Server, str, str]:
    """The server, the network's name and the path of the instance or profile."""
    server, network = call.required(call.arguments[0], "network name")
    return server, network, url(kind, call.arguments[1])


def _save(call: Call, server: Server, path: str, value: dict[str, Any], etag: str) -> None:
    from atoll.cli.commands import config, profiles

    kind = profiles.PROFILE if "/profiles/" in path else config.INSTANCE
    entity.put(call, kind, server, path, value, etag)


def attach(call: Call) -> None:
    """Give an instance an interface."""
    _attach(call, "instances")


def attach_profile(call: Call) -> None:
    """Give a profile an interface."""
    _attach(call, "profiles")


def _attach(call: Call, kind: str) -> None:
    server, network, path = _owner(call, kind)
    device_name, interface = [*call.arguments[2:], "", ""][:2]
    found = server.get(url("networks", network))
    device = {"type": "nic", "network": network} if found["managed"] else _unmanaged(found)
    if interface:
        device["name"] = interface
    answer = server.fetch(path)
    devices = answer.metadata.get("devices") or {}
    name = device_name or network
    if name in devices:
        raise CommandError(f"Device already exists: {name}")
    _save(call, server, path, answer.metadata | {"devices": devices | {name: device}}, answer.etag)


def _unmanaged(network: dict[str, Any]) -> dict[str, str]:
    kind = "bridged" if network["type"] == "bridge" else "macvlan"
    return {"type": "nic", "nictype": kind, "parent": network["name"]}


def detach(call: Call) -> None:
    """Take an interface from an instance."""
    _detach(call, "instances")


def detach_profile(call: Call) -> None:
    """Take an interface from a profile."""
    _detach(call, "profiles")


def _detach(call: Call, kind: str) -> None:
    server, network, path = _owner(call, kind)
    answer = server.fetch(path)
    devices: dict[str, dict[str, str]] = answer.metadata.get("devices") or {}
    name = call.arguments[2] if len(call.arguments) > 2 else _only_device(devices, network)
    if name not in devices:
        raise CommandError("The specified device doesn't exist")
    if not _is_in(devices[name], network):
        raise CommandError("The specified device doesn't match the network")
    del devices[name]
    _save(call, server, path, answer.metadata | {"devices": devices}, answer.etag)


def _is_in(device: dict[str, str], network: str) -> bool:
    return device.get("type") == "nic" and network in (device.get("network"), device.get("parent"))


def _only_device(devices: dict[str, dict[str, str]], network: str) -> str:
    found = [name for name, device in devices.items() if _is_in(device, network)]
    if not found:
        raise CommandError("No device found for this network")
    if len(found) > 1:
        raise CommandError("More than one device matches, specify the device name")
    return found[0]
