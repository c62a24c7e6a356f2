"""The firewall table of a bridge: what guests may ask of the host, whether traffic is routed, and NAT.

An `accept` here ends our own chain only: it says what the network needs, and cannot undo another table's drop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from atoll.drivers.network.bridge.settings import IpSettings, Settings
from atoll.host import nftables
from atoll.host.nftables import Chain, Family, Interface, Table, rule

_NAT_PRIORITY = 100
_V4_ERRORS = "{ destination-unreachable, time-exceeded, parameter-problem }"
_V6_NEEDED = (
    "{ destination-unreachable, packet-too-big, time-exceeded, parameter-problem,"
    " nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report }"
)
_V6_SENT = (
    "{ destination-unreachable, packet-too-big, time-exceeded, parameter-problem, echo-request, echo-reply,"
    " nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report }"
)


def table_name(network: str) -> str:
    """The name of a network's table."""
    return f"{nftables.PREFIX}{network}"


def table(settings: Settings) -> Table | None:
    """The table of these settings; None where there is nothing to say."""
    chains = [
        Chain("input", _each(settings, _input), "filter hook input"),
        Chain("output", _each(settings, _output), "filter hook output"),
        Chain("forward", _each(settings, _forward), "filter hook forward"),
        *_nat_chains(settings),
    ]
    filled = tuple(chain for chain in chains if chain.rules)
    return Table(Family.INET, table_name(settings.name), filled) if filled else None


def _each(settings: Settings, rules: Callable[[Interface, IpSettings], list[str]]) -> tuple[str, ...]:
    bridge = Interface(settings.name)
    active = [family for family in settings.families if family.interface is not None and family.firewall]
    return tuple(text for family in active for text in rules(bridge, family))


def _input(bridge: Interface, family: IpSettings) -> list[str]:
    kind = f"meta nfproto ipv{family.version}"
    dns = [rule("iifname", bridge, kind, f"{protocol} dport 53 accept") for protocol in ("tcp", "udp")]
    if family.version == 4:
        return [
            *dns,
            rule("iifname", bridge, f"icmp type {_V4_ERRORS} accept"),
            *([rule("iifname", bridge, kind, "udp dport 67 accept")] if family.dhcp else []),
        ]
    return [
        *dns,
        rule("iifname", bridge, f"icmpv6 type {_V6_NEEDED} accept"),
        *([rule("iifname", bridge, kind, "udp dport 547 accept")] if family.dhcp else []),
    ]


def _output(bridge: Interface, family: IpSettings) -> list[str]:
    kind = f"meta nfproto ipv{family.version}"
    dns = [rule("oifname", bridge, kind, f"{protocol} sport 53 accept") for protocol in ("tcp", "udp")]
    port = 67 if family.version == 4 else 547
    needed = f"icmp type {_V4_ERRORS}" if family.version == 4 else f"icmpv6 type {_V6_SENT}"
    return [
        *dns,
        rule("oifname", bridge, needed, "accept"),
        *([rule("oifname", bridge, kind, "udp sport", port, "accept")] if family.dhcp else []),
    ]


def _forward(bridge: Interface, family: IpSettings) -> list[str]:
    kind = f"meta nfproto ipv{family.version}"
    within = rule("iifname", bridge, "oifname", bridge, kind, "accept")
    if family.routing:
        return [rule("iifname", bridge, kind, "accept"), rule("oifname", bridge, kind, "accept")]
    return [within, rule("iifname", bridge, kind, "reject"), rule("oifname", bridge, kind, "reject")]


def _nat_chains(settings: Settings) -> list[Chain]:
    """`before` and `after` are relative to where others do source NAT: the first chain that translates decides."""
    chains = []
    for after, name in ((False, "postrouting"), (True, "postrouting_after")):
        families = [family for family in settings.families if family.nat_after is after]
        rules = tuple(text for family in families for text in _nat(family))
        chains.append(Chain(name, rules, "nat hook postrouting", priority=_NAT_PRIORITY + (1 if after else -1)))
    return chains


def _nat(family: IpSettings) -> list[str]:
    if family.interface is None or not family.nat:
        return []
    word, network = ("ip" if family.version == 4 else "ip6"), family.interface.network
    target: tuple[Any, ...] = (f"snat {word} to", family.nat_address) if family.nat_address else ("masquerade",)
    return [rule(f"{word} saddr", network, f"{word} daddr !=", network, *target)]
