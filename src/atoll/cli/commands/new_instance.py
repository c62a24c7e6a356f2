"""What the commands that make instances have in common."""

from __future__ import annotations

from atoll.cli.errors import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from atoll.cli.arguments import Flags

    Devices = dict[str, dict[str, Any]]


def config(flags: Flags) -> dict[str, str]:
    """The pairs of every --config KEY=VALUE."""
    found = {}
    for pair in flags.every("config"):
        key, equals, value = pair.partition("=")
        if not equals:
            raise CommandError(f"Bad key=value pair: {pair}")
        found[key] = value
    return found


def override(devices: Devices, inherited: Devices, change: str) -> None:
    """Apply one --device NAME,KEY=VALUE: to the instance's own device, else to a copy of the inherited one."""
    name, comma, pair = change.partition(",")
    key, equals, value = pair.partition("=")
    if not comma or not equals:
        raise CommandError(f"Bad device override syntax, expecting <device>,<key>=<value>: {change}")
    devices.setdefault(name, dict(inherited.get(name) or {}))[key] = value


def created_name(operation: dict[str, Any]) -> str:
    """The name that the server gave to a new instance."""
    resources = operation.get("resources") or {}
    found = resources.get("instances") or resources.get("containers")
    if not found:
        raise CommandError("Failed to get instance name from the server")
    name: str = found[0].partition("?")[0].rpartition("/")[2]
    return name
