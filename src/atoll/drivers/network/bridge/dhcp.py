"""What dnsmasq is told of a bridge, and which leases there are."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from atoll.drivers.instance.contract import MachineId
from atoll.drivers.network import addresses
from atoll.drivers.network.bridge.settings import DnsMode, IpSettings, Settings
from atoll.drivers.network.contract import Lease, Reservation
from atoll.host import dnsmasq
from atoll.host.dnsmasq import option

_USUAL_MTU = 1500


def options(settings: Settings) -> list[str]:
    """The configuration lines of a network."""
    lines = [option("interface", settings.name), option("except-interface", "lo")]
    lines += [option("listen-address", family.interface.ip) for family in settings.families if family.interface]
    lines += _dns(settings)
    if settings.v4.interface and settings.v4.dhcp:
        lines += _dhcp4(settings, settings.v4)
    if settings.v6.interface:
        lines += _dhcp6(settings, settings.v6)
    return lines


def _dns(settings: Settings) -> list[str]:
    if settings.dns_mode is DnsMode.NONE:
        return ["dhcp-ignore-names"]
    return [
        option("domain", settings.domain),
        option("interface-name", f"_gateway.{settings.domain}", settings.name),
        option("server", f"/{settings.domain}/"),  # names of this domain never leave the host
        *(["dhcp-ignore-names"] if settings.dns_mode is DnsMode.MANAGED else []),
    ]


def _dhcp4(settings: Settings, family: IpSettings) -> list[str]:
    assert family.interface is not None
    netmask = family.interface.network.netmask
    lines = [
        option("dhcp-range", first, last, netmask, family.expiry)
        for first, last in addresses.dhcp_ranges(family.interface, family.ranges)
    ]
    if family.gateway:
        lines.append(option("dhcp-option-force", "option:router", family.gateway))
    if settings.mtu != _USUAL_MTU:
        lines.append(option("dhcp-option-force", "option:mtu", settings.mtu))
    if settings.search:
        lines.append(option("dhcp-option-force", "option:domain-search", *settings.search))
    return lines


def _dhcp6(settings: Settings, family: IpSettings) -> list[str]:
    """Guests give themselves addresses (SLAAC) unless DHCP is stateful; without DHCP there are router advertisements only.

    These carry the interface's MTU without being told.
    """
    assert family.interface is not None
    network = family.interface.network
    lines = ["enable-ra"]
    if family.dhcp and family.stateful:
        ranges = addresses.dhcp_ranges(family.interface, family.ranges)
        lines += [option("dhcp-range", first, last, network.prefixlen, family.expiry) for first, last in ranges]
    else:
        mode = "ra-stateless,ra-names" if family.dhcp else "ra-only"
        lines.append(option("dhcp-range", f"::,constructor:{settings.name}", mode))
    if family.dhcp and settings.search:
        lines.append(option("dhcp-option-force", "option6:domain-search", *settings.search))
    return lines


def hosts(settings: Settings, reservations: Iterable[Reservation]) -> dict[str, str]:
    """One file per NIC: name and line. A family that gives no addresses out by DHCP has none reserved."""
    names = settings.dns_mode is DnsMode.MANAGED
    return {
        file_name(entry): dnsmasq.host_line(
            entry.hwaddr,
            ipv4=entry.ipv4 if settings.v4.reserves else "",
            ipv6=entry.ipv6 if settings.v6.reserves else "",
            hostname=entry.hostname if names else "",
        )
        for entry in reservations
        if entry.hwaddr
    }


def file_name(reservation: Reservation) -> str:
    """The hosts file of a NIC, in LXD's way of writing a name with slashes as one segment of a path."""
    device = reservation.device.replace("-", "--").replace("/", "-")
    return f"{MachineId(reservation.project, reservation.instance).key}.{device}"


def leases(settings: Settings, given: dnsmasq.Leases, reservations: Sequence[Reservation]) -> list[Lease]:
    """Gateway, static and dynamic leases; one that is reserved and given out is static."""
    found = [
        Lease(f"{settings.name}.gw", "", str(family.interface.ip), "gateway") for family in settings.families if family.interface
    ]
    static = [
        Lease(entry.hostname, entry.hwaddr, address, "static")
        for entry in reservations
        for address in (entry.ipv4, entry.ipv6)
        if address and address != "none"
    ]
    taken = {lease.address for lease in (*found, *static)}
    names = {entry.hwaddr: entry.hostname for entry in reservations}
    now = time.time()
    dynamic = [
        Lease(line.hostname or names.get(mac_of(line), ""), mac_of(line), line.address, "dynamic")
        for line in given.lines
        if line.address not in taken and (line.expires == 0 or line.expires > now)
    ]
    return [*found, *static, *dynamic]


def mac_of(line: dnsmasq.LeaseLine) -> str:
    """The MAC of a lease's client; of a DHCPv6 client the one in its DUID (types LLT and LL), empty for other types."""
    if line.client:
        return line.client
    octets = line.duid.split(":")
    kind = "".join(octets[:4])
    if kind == "00010001" and len(octets) == 14:
        return ":".join(octets[8:])
    if kind == "00030001" and len(octets) == 10:
        return ":".join(octets[4:])
    return ""
