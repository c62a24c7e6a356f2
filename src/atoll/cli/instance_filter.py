"""The filters of `atoll list`: a name, or key=value."""

from __future__ import annotations

from atoll.cli import instance_columns
from atoll.cli.errors import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def matches(instance: dict[str, Any], filters: list[str]) -> bool:
    """Whether an instance satisfies every filter."""
    return all(_matches_one(instance, word) for word in filters)


def _matches_one(instance: dict[str, Any], word: str) -> bool:
    key, equals, value = word.partition("=")
    if not equals:
        return _matches_name(instance["name"], word)
    if key in ("type", "status", "architecture", "location"):
        found = str(instance.get(key) or "").lower()
        return any(found == wanted.lower() for wanted in value.split(","))
    if key in ("ipv4", "ipv6"):
        return _matches_address(instance, "inet" if key == "ipv4" else "inet6", value)
    return _matches_config(instance, key, value)


def _matches_name(name: str, word: str) -> bool:
    """A plain word is the start of a name; anything else is a regular expression."""
    return name.startswith(word) or (not _is_plain(word) and _regex(word, name, whole=False))


def _is_plain(word: str) -> bool:
    return word.replace("-", "").isalnum()


def _regex(pattern: str, text: str, *, whole: bool) -> bool:
    import re

    try:
        return bool(re.fullmatch(pattern, text) if whole else re.match(pattern, text))
    except re.error as error:
        raise CommandError(f"Invalid filter '{pattern}': {error}") from error


def _matches_address(instance: dict[str, Any], family: str, value: str) -> bool:
    import ipaddress

    try:
        networks = [ipaddress.ip_network(word, strict=False) for word in value.split(",")]
    except ValueError as error:
        raise CommandError(f"Invalid address filter: {error}") from error
    found = [ipaddress.ip_address(address) for address, _ in instance_columns.addresses(instance, family)]
    return any(address in network for address in found for network in networks)


def _matches_config(instance: dict[str, Any], key: str, value: str) -> bool:
    config = instance.get("expanded_config") or {}
    wanted = key.split(".")
    for name, found in config.items():
        if _is_short_for(wanted, name.split(".")) and (found == value or _regex(value, found, whole=True)):
            return True
    return False


def _is_short_for(wanted: list[str], name: list[str]) -> bool:
    """u.blah is short for user.blah: every part but the last may be abbreviated."""
    if len(wanted) != len(name) or wanted[-1] != name[-1]:
        return wanted == name
    return all(full.startswith(part) for part, full in zip(wanted[:-1], name[:-1], strict=True))
