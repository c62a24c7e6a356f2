"""The bridge's interface: brought to its settings by the fewest changes, so that an intact one is not touched at all.

A bridge of ours bears an alias; a bridge of somebody else's under our name is never taken over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from atoll.domain.errors import BadRequest, Conflict, HostError, Unsupported
from atoll.drivers.network import links
from atoll.drivers.network.bridge.settings import IpSettings, Settings, Tunnel, TunnelProtocol
from atoll.host import iproute, netlink, rtnetlink, sysctl, threads
from atoll.host.iproute import Change
from atoll.host.rtnetlink import Link, Route

ALIAS = "atoll-managed"
_TUNNEL_KINDS = {TunnelProtocol.VXLAN: "vxlan", TunnelProtocol.GRE: "gretap"}
_MACHINE_ID = Path("/etc/machine-id")


def hwaddr(settings: Settings, folder: Path) -> str:
    """The configured address, or one that follows from host and network: the same after each restart and reboot."""
    if settings.hwaddr:
        return settings.hwaddr
    host = _MACHINE_ID.read_text() if _MACHINE_ID.is_file() else ""
    digest = hashlib.sha256(f"{host}\0{folder}\0{settings.name}".encode()).digest()
    return "00:16:3e:" + digest[:3].hex(":")


async def ensure(settings: Settings, folder: Path, previous: Settings | None = None) -> bool:
    """Bring interface, addresses, routes, ports and tunnels to these settings; True when the interface was made anew."""
    present = (await threads.in_thread(netlink.links)).get(settings.name)
    _refuse_foreign(settings.name, present)
    if present is None:
        await iproute.ip(
            [
                ("link", "add", "name", settings.name, "address", hwaddr(settings, folder), "type", "bridge"),
                ("link", "set", "dev", settings.name, "alias", ALIAS),
            ]
        )
    await threads.in_thread(_kernel_settings, settings)
    found, routes = await threads.in_thread(_look)
    await iproute.ip(changes(settings, hwaddr(settings, folder), found, routes, previous))
    await _tunnels(settings, found, routes, previous)
    return present is None


async def delete(settings: Settings) -> None:
    """Remove the bridge and its tunnels; external interfaces and instances' ports are merely let go."""
    found = await threads.in_thread(netlink.links)
    present = found.get(settings.name)
    if present is None or present.alias != ALIAS:
        return
    for name in _tunnel_links(settings.name, found):
        await iproute.delete_link(name)
    await iproute.delete_link(settings.name)


async def intact(settings: Settings) -> bool:
    """Whether the interface is there, up, and has its addresses."""
    present = (await threads.in_thread(netlink.links)).get(settings.name)
    if present is None or not present.up:
        return False
    return {family.interface for family in settings.families if family.interface} <= _global_addresses(present)


def _refuse_foreign(name: str, present: Link | None) -> None:
    if present is not None and (present.kind != "bridge" or present.alias != ALIAS):
        raise Conflict(f"Network interface {name!r} already exists", hint="choose another name for the network")


def _kernel_settings(settings: Settings) -> None:
    name = settings.name
    sysctl.set_interface("ipv6", name, "disable_ipv6", "0" if settings.v6.interface else "1")
    sysctl.set_interface("ipv6", name, "autoconf", "0")
    sysctl.set_interface("ipv6", name, "accept_ra", "0")
    sysctl.set_interface("ipv6", name, "accept_dad", "0")
    if settings.v4.interface and settings.v4.routing:
        sysctl.enable_ipv4_forwarding()
    if settings.v6.interface and settings.v6.routing:
        sysctl.enable_ipv6_forwarding()
    # Frames to link-local groups (LLDP) pass no filter of the bridge family: nothing is to be learned from them.
    for option in ("vlan_filtering", "no_linklocal_learn"):
        path = links.SYS_NET / name / "bridge" / option
        if path.exists() and path.read_text().strip() == "0":
            path.write_text("1")


def _look() -> tuple[dict[str, Link], list[Route]]:
    return netlink.links(), netlink.routes()


def changes(
    settings: Settings, address: str, found: Mapping[str, Link], routes: Iterable[Route], previous: Settings | None
) -> list[Change]:
    """What is to be changed of the bridge as it was found; an empty list for an intact one. Pure."""
    present = found[settings.name]
    # First what goes: with an interface's last address of a family the kernel removes its routes, and a second time is an error.
    static = [route for route in routes if route.link == present.index and route.protocol == rtnetlink.PROTOCOL_STATIC]
    steps = [step for family in settings.families for step in _route_removals(settings.name, family, static)]
    if present.hwaddr != address:
        steps.append(("link", "set", "dev", settings.name, "address", address))
    if present.mtu != settings.mtu:
        steps.append(("link", "set", "dev", settings.name, "mtu", str(settings.mtu)))
    steps += _address_changes(settings, present)
    if not present.up:
        steps.append(("link", "set", "dev", settings.name, "up"))
    for family in settings.families:
        steps += _route_additions(settings.name, family, static)
    return steps + _external_changes(settings, present, found, previous)


def _global_addresses(link: Link) -> set[object]:
    return {entry.interface for entry in link.addresses if entry.scope == "global"}


def _address_changes(settings: Settings, present: Link) -> list[Change]:
    """The new address comes before the old one goes, so that a bridge in use is never without."""
    wanted = [family.interface for family in settings.families if family.interface]
    have = [entry.interface for entry in present.addresses if entry.scope == "global"]
    added: list[Change] = []
    for interface in wanted:
        if interface not in have:
            extra = ("nodad",) if interface.version == 6 else ("broadcast", str(interface.network.broadcast_address))
            added.append(("address", "add", str(interface), "dev", settings.name, *extra))
    gone: list[Change] = [("address", "del", str(entry), "dev", settings.name) for entry in have if entry not in wanted]
    return added + gone


def _routes_wanted(family: IpSettings) -> set[rtnetlink.IpNetwork]:
    return set(family.routes) if family.interface else set()


def _route_removals(name: str, family: IpSettings, static: Iterable[Route]) -> list[Change]:
    """Routes of the network are of protocol `static`; those of NICs (`boot`) and of other people are let be."""
    have = {route.destination for route in static if route.destination.version == family.version}
    return [
        ("route", "del", str(network), "dev", name, "proto", "static")
        for network in sorted(have - _routes_wanted(family), key=str)
    ]


def _route_additions(name: str, family: IpSettings, static: Iterable[Route]) -> list[Change]:
    missing = _routes_wanted(family) - {route.destination for route in static}
    return [("route", "replace", str(network), "dev", name, "proto", "static") for network in family.routes if network in missing]


def _external_changes(settings: Settings, present: Link, found: Mapping[str, Link], previous: Settings | None) -> list[Change]:
    steps: list[Change] = []
    for name in settings.external:
        link = found.get(name)
        if link is None:
            raise BadRequest(f"External interface {name!r} not found")
        if link.master == present.index:
            continue
        if link.master or any(entry.scope == "global" for entry in link.addresses):
            raise Conflict(f"External interface {name!r} is in use: only unconfigured interfaces can be attached")
        steps += [("link", "set", "dev", name, "master", settings.name), ("link", "set", "dev", name, "up")]
    dropped = set(previous.external) - set(settings.external) if previous else set()
    steps += [("link", "set", "dev", name, "nomaster") for name in sorted(dropped & found.keys())]
    return steps


def _tunnel_links(network: str, found: Mapping[str, Link]) -> list[str]:
    return [name for name, link in found.items() if name.startswith(f"{network}-") and link.kind in _TUNNEL_KINDS.values()]


async def _tunnels(settings: Settings, found: Mapping[str, Link], routes: Sequence[Route], previous: Settings | None) -> None:
    before = {tunnel.name: tunnel for tunnel in previous.tunnels} if previous else {}
    wanted = {f"{settings.name}-{tunnel.name}": tunnel for tunnel in settings.tunnels}
    for name in _tunnel_links(settings.name, found):
        tunnel = wanted.get(name)
        if tunnel is not None and before.get(tunnel.name, tunnel) == tunnel:
            del wanted[name]
        else:
            await iproute.delete_link(name)
    for name, tunnel in wanted.items():
        outer = tunnel.interface or _default_interface(found, routes)
        try:
            await iproute.ip(tunnel_changes(settings, name, tunnel, outer))
        except HostError as error:
            if "not supported" in error.message or "Unknown device type" in error.message:
                raise Unsupported(f"This kernel has no {tunnel.protocol} tunnels") from error
            raise


def _default_interface(found: Mapping[str, Link], routes: Iterable[Route]) -> str:
    indexes = {link.index: name for name, link in found.items()}
    for route in routes:
        if route.destination.prefixlen == 0 and route.link in indexes:
            return indexes[route.link]
    return ""


def tunnel_changes(settings: Settings, name: str, tunnel: Tunnel, outer: str) -> list[Change]:
    """How a tunnel is made; `outer` is the interface of a multicast vxlan. Pure."""
    words: list[str] = ["link", "add", "name", name, "type", _TUNNEL_KINDS[tunnel.protocol]]
    if tunnel.protocol is TunnelProtocol.GRE:
        words += ["local", str(tunnel.local), "remote", str(tunnel.remote)]
    else:
        words += ["id", str(tunnel.id), "dstport", str(tunnel.port), "ttl", str(tunnel.ttl)]
        if tunnel.local and tunnel.remote:
            words += ["local", str(tunnel.local), "remote", str(tunnel.remote)]
        elif outer:
            words += ["group", str(tunnel.group), "dev", outer]
        else:
            raise BadRequest(f"Tunnel {tunnel.name!r} has no interface", hint=f"set tunnel.{tunnel.name}.interface")
    return [
        tuple(words),
        ("link", "set", "dev", name, "mtu", str(settings.mtu), "master", settings.name),
        ("link", "set", "dev", name, "up"),
    ]
