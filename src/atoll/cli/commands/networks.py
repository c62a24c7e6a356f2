"""`network`: networks, their state and their leases."""

from __future__ import annotations

import sys

from atoll.cli import entity, times, verbs
from atoll.client.address import url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from atoll.cli.session import Call

NETWORK = entity.Entity(
    show=("config", "description", "name", "type", "used_by", "managed", "status", "locations"),
    put=("config", "description"),
)
VERBS = verbs.Verbs(
    NETWORK, noun="network", argument="network", collection="networks",
    changeable="only the configuration and the description can be changed", blank=False,
)  # fmt: skip


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
    VERBS.make(call, type=call.flags.text("type"), config=entity.key_values(call.arguments[1:]))


def info(call: Call) -> None:
    """Show the run-time state of a network."""
    server, name, _ = VERBS.one(call)
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
    server, name, _ = VERBS.one(call)
    found = server.get(url("networks", name, "leases")) or []
    fields = ("hostname", "hwaddr", "address")
    rows = [[*(row.get(key) or "" for key in fields), (row.get("type") or "").upper()] for row in found]
    entity.print_list(call, ("HOSTNAME", "MAC ADDRESS", "IP ADDRESS", "TYPE"), rows, found)
