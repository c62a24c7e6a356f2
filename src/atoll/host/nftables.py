"""Firewall rules as whole tables of our own, replaced atomically by `nft -f -`; nobody else's table is read or touched.

Each network and each filtered interface has a table to itself (`atoll.…`), so there are two operations only: `replace` puts
a table in the place of whatever is there under its name, `remove` deletes it. Both are one transaction of the kernel.

Rules are built by `rule(…)` of typed words. Plain strings are keywords of ours; what comes from a configuration is wrapped
(`Interface`) or is an address, network or number, so that no value can end a word, a line or a quotation.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from atoll.domain.errors import BadRequest
from atoll.host import process

_KEYWORDS = re.compile(r"[a-z0-9 _.,{}!=<>&@:/-]+")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,120}")
_INTERFACE = re.compile(r"[A-Za-z0-9_.:-]{1,15}")
_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")

PREFIX = "atoll."

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class Family(StrEnum):
    """The address families of tables."""

    INET = "inet"
    BRIDGE = "bridge"
    NETDEV = "netdev"


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface's name as a value in a rule."""

    name: str


@dataclass(frozen=True, slots=True)
class Mac:
    """A hardware address as a value in a rule, lower case with colons."""

    address: str


Word = str | int | Interface | Mac | IpAddress | IpNetwork


@dataclass(frozen=True, slots=True)
class Chain:
    """`hook` is the text between `type` and `priority N;`, empty for a chain that is only jumped to."""

    name: str
    rules: tuple[str, ...]
    hook: str = ""
    device: Interface | None = None
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """A whole table."""

    family: Family
    name: str
    chains: tuple[Chain, ...]


def rule(*words: Word) -> str:
    """One rule's text. BadRequest for a word that is not of its kind."""
    return " ".join(_word(word) for word in words)


def _word(word: Word) -> str:
    if isinstance(word, Interface):
        return f'"{_checked(_INTERFACE, word.name)}"'
    if isinstance(word, Mac):
        return _checked(_MAC, word.address)
    if isinstance(word, str):
        return _checked(_KEYWORDS, word)
    return str(word)


def _checked(pattern: re.Pattern[str], text: str) -> str:
    if not pattern.fullmatch(text):
        raise BadRequest(f"Invalid value for a firewall rule: {text[:80]!r}")
    return text


def render(table: Table) -> str:
    """The transaction that puts the table in place of whatever has its name."""
    head = f"table {table.family} {_checked(_NAME, table.name)}"
    lines = [head, f"delete {head}", f"{head} {{"]
    for chain in table.chains:
        lines.append(f"\tchain {_checked(_NAME, chain.name)} {{")
        if chain.hook:
            device = f" device {_word(chain.device)}" if chain.device else ""
            lines.append(f"\t\ttype {_checked(_KEYWORDS, chain.hook)}{device} priority {chain.priority:d}; policy accept;")
        lines += [f"\t\t{text}" for text in chain.rules]
        lines.append("\t}")
    return "\n".join([*lines, "}", ""])


async def replace(table: Table) -> None:
    """Put it in place, atomically."""
    await process.run(["nft", "-f", "-"], input=render(table).encode(), timeout=30)


async def remove(family: Family, name: str) -> None:
    """Delete a table of ours; nothing wrong if there is none."""
    head = f"table {family} {_checked(_NAME, name)}"
    await process.run(["nft", "-f", "-"], input=f"{head}\ndelete {head}\n".encode(), timeout=30)


async def intact(table: Table) -> bool:
    """Whether it is loaded with as many rules in each chain as it should have."""
    listing = await process.run(["nft", "-j", "list", "table", table.family, table.name], check=False, timeout=30)
    if listing.code != 0:
        return False
    found: dict[str, int] = {}
    for entry in json.loads(listing.stdout)["nftables"]:
        if "chain" in entry:
            found.setdefault(entry["chain"]["name"], 0)
        elif "rule" in entry:
            found[entry["rule"]["chain"]] = found.get(entry["rule"]["chain"], 0) + 1
    return found == {chain.name: len(chain.rules) for chain in table.chains}


async def owned() -> set[tuple[Family, str]]:
    """All tables that are loaded and bear our prefix."""
    listing = await process.run(["nft", "-j", "list", "tables"], timeout=30)
    tables: Sequence[dict[str, dict[str, str]]] = json.loads(listing.stdout)["nftables"]
    known = {str(family) for family in Family}
    return {
        (Family(entry["table"]["family"]), entry["table"]["name"])
        for entry in tables
        if "table" in entry and entry["table"]["name"].startswith(PREFIX) and entry["table"]["family"] in known
    }
