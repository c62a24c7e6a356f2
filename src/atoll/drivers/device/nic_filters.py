"""Rules that keep a guest from speaking in another's name, per NIC, in a bridge-family table of its own.

They stand in `prerouting`, before the bridge learns a frame's sender, and in `input`, which is the only hook that frames to
the link-local group addresses pass. Drops come first: no accept below can let a frame through that bears a wrong MAC.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from atoll.config import devices
from atoll.drivers.network import addresses
from atoll.host import netlink, nftables
from atoll.host.nftables import Chain, Family, Interface, Mac, Table, rule

# Before anybody's filter and NAT of the bridge family.
_PRIORITY = -350
_ICMPV6 = "icmpv6 type"
_LONGEST_SOLICIT = 32  # a neighbour message with one link-layer option: what fixed offsets below are true for
_TABLE = devices.device_table("nic", "bridged")


@dataclass(frozen=True, slots=True)
class Filter:
    """What one NIC may send. `ipv4` and `ipv6` are the sources it may use; empty for none, None for whatever it likes."""

    host_name: str
    hwaddr: str
    ipv4: tuple[ipaddress.IPv4Network, ...] | None = None
    ipv6: tuple[ipaddress.IPv6Network, ...] | None = None


def wanted(config: Mapping[str, str], host_name: str, hwaddr: str) -> Filter | None:
    """The filter that a NIC's configuration asks for; filtering addresses implies filtering the MAC.

    A NIC whose addresses are filtered and that has none may not send packets of that family at all.
    """
    flags = {key: _TABLE.flag(config, f"security.{key}_filtering") for key in ("mac", "ipv4", "ipv6")}
    if not any(flags.values()):
        return None
    return Filter(
        host_name,
        hwaddr.lower(),
        ipv4=tuple(map(ipaddress.IPv4Network, _allowed(config, "ipv4"))) if flags["ipv4"] else None,
        ipv6=tuple(map(ipaddress.IPv6Network, _allowed(config, "ipv6"))) if flags["ipv6"] else None,
    )


def _allowed(config: Mapping[str, str], family: str) -> list[str]:
    address = _TABLE.get(config, f"{family}.address")
    networks = [str(network) for key in ("routes", "routes.external") for network in _TABLE.get(config, f"{family}.{key}") or ()]
    return [*([str(address)] if address and address != "none" else []), *networks]


def table_name(host_name: str) -> str:
    """The name of a NIC's tables, of whatever family."""
    return f"{nftables.PREFIX}nic.{host_name}"


async def lost(host_names: Collection[str]) -> set[str]:
    """Of these interfaces, which have filters or limits by their configuration, those without any table loaded: somebody
    flushed the rules, and `started` of the NIC puts them back. One program, however many interfaces."""
    loaded = {name for _, name in await nftables.owned()} if host_names else set()
    return {host_name for host_name in host_names if table_name(host_name) not in loaded}


async def sweep() -> list[str]:
    """Remove tables of interfaces that are gone, which a killed daemon may leave; a sentence for each.

    To be called before any NIC is prepared: a table may come before its interface.
    """
    done = []
    for family, name in sorted(await nftables.owned()):
        host_name = name.removeprefix(table_name(""))
        if host_name != name and not netlink.exists(host_name):
            await nftables.remove(family, name)
            done.append(f"Removed firewall rules of interface {host_name}, which is gone")
    return done


def table(wish: Filter) -> Table:
    """The table of a filter."""
    rules = [*_mac_rules(wish.hwaddr)]
    if wish.ipv4 is not None:
        rules += _ipv4_rules(wish.ipv4)
    if wish.ipv6 is not None:
        rules += _ipv6_rules(wish.ipv6, wish.hwaddr)
    if wish.ipv4 is not None or wish.ipv6 is not None:
        rules.append(rule("ether type != { ip, arp, ip6 } drop"))  # tagged frames could carry anything
    jump = (rule("iifname", Interface(wish.host_name), "jump check"),)
    hooks = tuple(Chain(hook, jump, f"filter hook {hook}", priority=_PRIORITY) for hook in ("prerouting", "input"))
    return Table(Family.BRIDGE, table_name(wish.host_name), (Chain("check", tuple(rules)), *hooks))


def _mac_rules(hwaddr: str) -> list[str]:
    """Its MAC as sender of frames and wherever a protocol names one: ARP, neighbour discovery, DHCP.

    Offsets are in bits: of `nh` from the IPv6 header, of `th` from the UDP header. A first fragment of a DHCP request could be
    too short to hold the address looked at, so fragments to a DHCP server are dropped; likewise neighbour messages behind
    extension headers or with more options than one.
    """
    mac, number = Mac(hwaddr), hex(int(hwaddr.replace(":", ""), 16))
    return [
        rule("ether saddr !=", mac, "drop"),
        rule("arp saddr ether !=", mac, "drop"),
        rule("ip6 nexthdr != 58", _ICMPV6, "{ 133, 134, 135, 136, 137 } drop"),
        rule(_ICMPV6, "{ 135, 136 } ip6 length >", _LONGEST_SOLICIT, "drop"),
        rule(_ICMPV6, "133 @nh,384,8 1 @nh,400,48 !=", number, "drop"),
        rule(_ICMPV6, "135 @nh,512,8 1 @nh,528,48 !=", number, "drop"),
        rule(_ICMPV6, "136 @nh,528,48 !=", number, "drop"),
        rule("udp dport 67 ip frag-off & 0x3fff != 0 drop"),
        rule("udp dport 67 @th,288,48 !=", number, "drop"),
    ]


def _ipv4_rules(allowed: Sequence[ipaddress.IPv4Network]) -> list[str]:
    if not allowed:
        return [rule("ether type arp drop"), rule("ether type ip drop")]
    return [
        rule("ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp dport 67 accept"),
        rule("arp saddr ip 0.0.0.0 accept"),  # a probe for a duplicate address: it tells nobody anything
        *(rule("arp saddr ip", network, "accept") for network in allowed),
        rule("ether type arp drop"),
        *(rule("ip saddr", network, "accept") for network in allowed),
        rule("ether type ip drop"),
    ]


def _ipv6_rules(allowed: Sequence[ipaddress.IPv6Network], hwaddr: str) -> list[str]:
    """The link-local address that follows from the MAC is the NIC's own too: neighbour discovery needs one."""
    if not allowed:
        return [rule("ether type ip6 drop")]
    own = (*allowed, ipaddress.IPv6Network(addresses.slaac(addresses.LINK_LOCAL, hwaddr)))
    return [
        rule(_ICMPV6, "134 drop"),
        rule(_ICMPV6, "137 drop"),
        *(_target_rule(network) for network in own),
        rule(_ICMPV6, "136 drop"),
        rule("ip6 saddr fe80::/10 ip6 daddr ff02::1:2 udp dport 547 accept"),
        rule("ip6 saddr :: ip6 daddr ff02::/16", _ICMPV6, "{ 133, 135, 143 } accept"),
        rule("ip6 saddr fe80::/10 ip6 daddr ff02::2", _ICMPV6, "133 accept"),
        *(rule("ip6 saddr", network, "accept") for network in own),
        rule("ether type ip6 drop"),
    ]


def _target_rule(network: ipaddress.IPv6Network) -> str:
    """An advertisement of an address in the network; the target's first bits are compared as a number."""
    length = network.prefixlen
    if length == 0:
        return rule(_ICMPV6, "136 accept")
    number = int(network.network_address) >> (128 - length)
    return rule(_ICMPV6, f"136 @nh,384,{length}", hex(number), "accept")
