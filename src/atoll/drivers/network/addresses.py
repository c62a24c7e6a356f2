"""Choosing subnets and addresses: pure functions of what is known already. No address is ever probed."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterable, Sequence

from atoll.config.netvalues import AddressRange
from atoll.domain.errors import Conflict

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IpInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

_ATTEMPTS = 500


def free_subnet(version: int, taken: Iterable[IpNetwork], *, source: random.Random | None = None) -> IpInterface:
    """A random subnet's first address: 10.x.y.1/24, or fd42:…::1/64, that overlaps none of `taken`.

    Default routes do not count as taken: they cover everything. Conflict when no free one was hit in 500 attempts.
    """
    chance = source or random.SystemRandom()
    occupied = [network for network in taken if network.version == version and network.prefixlen > 0]
    for _ in range(_ATTEMPTS):
        candidate = _random_interface(version, chance)
        if not any(_overlap(candidate.network, network) for network in occupied):
            return candidate
    raise Conflict(f"Failed to find a free IPv{version} subnet", hint=f"give ipv{version}.address an address yourself")


def _random_interface(version: int, chance: random.Random) -> IpInterface:
    if version == 4:
        return ipaddress.IPv4Interface(f"10.{chance.randint(0, 255)}.{chance.randint(0, 255)}.1/24")
    parts = ":".join(f"{chance.randint(0, 0xFFFF):x}" for _ in range(3))
    return ipaddress.IPv6Interface(f"fd42:{parts}::1/64")


def _overlap(one: IpNetwork, other: IpNetwork) -> bool:
    return one.version == other.version and one.overlaps(other)


def dhcp_ranges(interface: IpInterface, ranges: Sequence[AddressRange]) -> Sequence[tuple[IpAddress, IpAddress]]:
    """First and last addresses of the DHCP ranges: those configured, else all of the subnet but its ends and the first host."""
    if ranges:
        return [(entry.first, entry.last) for entry in ranges]
    network = interface.network
    return [(network[2], network[-2])] if network.num_addresses > 4 else []


def slaac(network: ipaddress.IPv6Network, hwaddr: str) -> ipaddress.IPv6Address:
    """The address that a guest with this MAC gives itself in a /64 by EUI-64."""
    octets = bytes.fromhex(hwaddr.replace(":", ""))
    identifier = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return ipaddress.IPv6Address(int(network.network_address) | int.from_bytes(identifier, "big"))


LINK_LOCAL = ipaddress.IPv6Network("fe80::/64")
