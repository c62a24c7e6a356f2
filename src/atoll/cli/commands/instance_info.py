"""`info`: one instance, or the server."""

from __future__ import annotations

import sys

from atoll.cli import output, times
from atoll.client.address import url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from atoll.cli.session import Call
    from atoll.client.server import Server

LOG_LINES = 100


def run(call: Call) -> None:
    """Show an instance, or without a name the server."""
    server, name = call.resolve(call.arguments[0] if call.arguments else "")
    if name:
        sys.stdout.write("\n".join(_instance(call, server, name)) + "\n")
        return
    from atoll.cli import server_info

    if call.flags.on("resources"):
        sys.stdout.write(server_info.resources(server.get(url("resources"))))
    else:
        sys.stdout.write(server_info.overview(server.get("/1.0")))


def _instance(call: Call, server: Server, name: str) -> Iterator[str]:
    instance = server.get(url("instances", name, recursion="1"))
    state = instance.get("state") or {}
    yield f"Name: {instance['name']}"
    yield f"Status: {instance['status'].upper()}"
    yield f"Type: {instance['type']}{' (ephemeral)' if instance.get('ephemeral') else ''}"
    yield f"Architecture: {instance['architecture']}"
    if instance.get("location") not in (None, "", "none"):
        yield f"Location: {instance['location']}"
    if state.get("pid"):
        yield f"PID: {state['pid']}"
    for label, key in (("Created", "created_at"), ("Last Used", "last_used_at")):
        if moment := times.minute(instance.get(key) or ""):
            yield f"{label}: {moment}"
    if state.get("pid"):
        yield "\nResources:"
        yield from _resources(state)
    yield from _snapshots(instance.get("snapshots") or [])
    yield from _backups(instance.get("backups") or [])
    if call.flags.on("show-log"):
        yield from _log(server, name)


def _resources(state: dict[str, Any]) -> Iterator[str]:
    yield f"  Processes: {state.get('processes', 0)}"
    disks = {name: disk["usage"] for name, disk in (state.get("disk") or {}).items() if disk.get("usage")}
    if disks:
        yield "  Disk usage:"
        yield from (f"    {name}: {times.binary_size(usage)}" for name, usage in disks.items())
    yield "  CPU usage:"
    yield f"    CPU usage (in seconds): {(state.get('cpu') or {}).get('usage', 0) // 10**9}"
    yield from _memory(state.get("memory") or {})
    if networks := state.get("network"):
        yield "  Network usage:"
        for name, network in networks.items():
            yield f"    {name}:"
            yield from _network(network)


def _memory(memory: dict[str, int]) -> Iterator[str]:
    shown = (
        ("Memory (current)", "usage"),
        ("Memory (peak)", "usage_peak"),
        ("Swap (current)", "swap_usage"),
        ("Swap (peak)", "swap_usage_peak"),
    )
    lines = [f"    {label}: {times.binary_size(memory[key])}" for label, key in shown if memory.get(key)]
    if lines:
        yield "  Memory usage:"
        yield from lines


def _network(network: dict[str, Any]) -> Iterator[str]:
    counters = network.get("counters") or {}
    rows = (
        ("Type", network.get("type")),
        ("State", str(network.get("state") or "").upper()),
        ("Host interface", network.get("host_name")),
        ("MAC address", network.get("hwaddr")),
        ("MTU", network.get("mtu")),
        ("Bytes received", times.decimal_size(counters.get("bytes_received", 0))),
        ("Bytes sent", times.decimal_size(counters.get("bytes_sent", 0))),
        ("Packets received", str(counters.get("packets_received", 0))),
        ("Packets sent", str(counters.get("packets_sent", 0))),
    )
    yield from (f"      {label}: {value}" for label, value in rows if value)
    yield "      IP addresses:"
    for address in network.get("addresses") or ():
        label = f"{address['family']}:".ljust(6)
        yield f"        {label} {address['address']}/{address['netmask']} ({address['scope']})"


def _snapshots(snapshots: list[dict[str, Any]]) -> Iterator[str]:
    if not snapshots:
        return
    rows = [
        [
            row["name"].rpartition("/")[2],
            times.minute(row.get("created_at") or ""),
            times.minute(row.get("expires_at") or ""),
            "YES" if row.get("stateful") else "NO",
        ]
        for row in snapshots
    ]
    yield "\nSnapshots:"
    yield output.table(("Name", "Taken at", "Expires at", "Stateful"), rows).rstrip("\n")


def _backups(backups: list[dict[str, Any]]) -> Iterator[str]:
    if not backups:
        return
    rows = [
        [
            row["name"].rpartition("/")[2],
            times.minute(row.get("created_at") or ""),
            times.minute(row.get("expires_at") or ""),
            "YES" if row.get("instance_only") else "NO",
            "YES" if row.get("optimized_storage") else "NO",
        ]
        for row in backups
    ]
    yield "\nBackups:"
    header = ("Name", "Taken at", "Expires at", "Instance Only", "Optimized Storage")
    yield output.table(header, rows).rstrip("\n")


def _log(server: Server, name: str) -> Iterator[str]:
    answer = server.exchange("GET", url("instances", name, "logs", "lxc.log"), {})
    text = answer.body.decode(errors="replace") if answer.status == 200 else ""
    yield "\nLog:\n"
    yield "\n".join(text.splitlines()[-LOG_LINES:]) + "\n"
