"""TCP ports on which something listens in a network namespace, from /proc/PID/net: no socket is opened, no packet is sent."""

from __future__ import annotations

import ipaddress
import itertools
import sys
from collections.abc import Iterable, Iterator

_LISTEN = "0A"


def tcp_ports(pid: int) -> frozenset[int]:
    """Ports that others can reach: not those that listen on the loopback only. Empty when the process is gone."""
    found: set[int] = set()
    for name in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{name}") as lines:
                found.update(parse(lines))
        except OSError:
            continue
    return frozenset(found)


def parse(lines: Iterable[str]) -> Iterator[int]:
    """The ports in such a file. The kernel shows all that listen before any connection: it is read no further."""
    for line in itertools.islice(lines, 1, None):
        fields = line.split()
        if len(fields) < 4 or fields[3] != _LISTEN:
            return
        address, _, port = fields[1].rpartition(":")
        if not _is_loopback(address):
            yield int(port, 16)


def _is_loopback(text: str) -> bool:
    """An address is shown as words of four bytes, each in the host's order."""
    words = (bytes.fromhex(text[at : at + 8]) for at in range(0, len(text), 8))
    address = ipaddress.ip_address(b"".join(word[::-1] if sys.byteorder == "little" else word for word in words))
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
