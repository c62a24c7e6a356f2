"""A bridge's configuration, typed. Texts are read once here; all other modules of the driver see addresses and flags."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address

from atoll.config import network as config_table
from atoll.config.netvalues import AddressRange
from atoll.config.values import parse_bool
from atoll.domain.errors import BadRequest, Unsupported
from atoll.drivers.network.addresses import IpAddress, IpInterface, IpNetwork

_TABLE = config_table.network_table("bridge")
_TUNNEL_MTU = 1400
_DEFAULT_MTU = 1500
_TUNNEL_KEY = re.compile(r"tunnel\.([^.]+)\.[a-z]+")


class DnsMode(StrEnum):
    """Whose names DNS has: those of the instances, those that clients ask for, or none."""

    MANAGED = "managed"
    DYNAMIC = "dynamic"
    NONE = "none"


class TunnelProtocol(StrEnum):
    """What carries a tunnel."""

    VXLAN = "vxlan"
    GRE = "gre"


@dataclass(frozen=True, slots=True)
class IpSettings:
    """One address family of a bridge; `interface` is None where the family is off."""

    version: int
    interface: IpInterface | None
    dhcp: bool
    stateful: bool
    expiry: str
    gateway: IpAddress | None
    ranges: tuple[AddressRange, ...]
    firewall: bool
    nat: bool
    nat_address: IpAddress | None
    nat_after: bool
    routes: tuple[IpNetwork, ...]
    routing: bool

    @property
    def reserves(self) -> bool:
        """Whether DHCP gives a NIC the address that it is to have."""
        return self.interface is not None and self.dhcp and self.stateful


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A tunnel to another host."""

    name: str
    protocol: TunnelProtocol
    local: IpAddress | None
    remote: IpAddress | None
    group: IpAddress
    id: int
    port: int
    ttl: int
    interface: str


@dataclass(frozen=True, slots=True)
class Settings:
    """All of a bridge."""

    name: str
    hwaddr: str
    mtu: int
    external: tuple[str, ...]
    domain: str
    dns_mode: DnsMode
    search: tuple[str, ...]
    raw_dnsmasq: str
    v4: IpSettings
    v6: IpSettings
    tunnels: tuple[Tunnel, ...]

    @property
    def families(self) -> tuple[IpSettings, IpSettings]:
        """IPv4 and IPv6."""
        return self.v4, self.v6

    @property
    def serves(self) -> bool:
        """Whether there is anything for a DHCP and DNS server to do."""
        return any(family.interface for family in self.families)


def parse(name: str, config: Mapping[str, str]) -> Settings:
    """The settings of a configuration. BadRequest for a wrong value, Unsupported for what this release cannot do."""
    _TABLE.validate(config)
    _refuse_unsupported(config)
    tunnels = tuple(_tunnel(config, tunnel) for tunnel in _tunnel_names(config))
    settings = Settings(
        name=name,
        hwaddr=_TABLE.text(config, "bridge.hwaddr").lower(),
        mtu=_TABLE.number(config, "bridge.mtu") or (_TUNNEL_MTU if tunnels else _DEFAULT_MTU),
        external=tuple(_TABLE.get(config, "bridge.external_interfaces") or ()),
        domain=_TABLE.text(config, "dns.domain"),
        dns_mode=DnsMode(_TABLE.text(config, "dns.mode")),
        search=tuple(_TABLE.get(config, "dns.search") or ()),
        raw_dnsmasq=_TABLE.text(config, "raw.dnsmasq"),
        v4=_family(config, 4),
        v6=_family(config, 6),
        tunnels=tunnels,
    )
    _check(settings)
    return settings


def _refuse_unsupported(config: Mapping[str, str]) -> None:
    if _TABLE.text(config, "bridge.driver") != "native":
        raise Unsupported("Open vSwitch bridges are not supported", hint="use bridge.driver=native")
    if _TABLE.text(config, "bridge.mode") != "standard":
        raise Unsupported("Fan bridges need a kernel patch of Ubuntu's", hint="use bridge.mode=standard with a vxlan tunnel")


def _family(config: Mapping[str, str], version: int) -> IpSettings:
    prefix = f"ipv{version}"
    address = _TABLE.get(config, f"{prefix}.address")
    if address == "auto":
        raise BadRequest(f"Network option '{prefix}.address' is still 'auto': it is filled in before a network starts")
    return IpSettings(
        version=version,
        interface=None if address == "none" else address,
        dhcp=_TABLE.flag(config, f"{prefix}.dhcp"),
        stateful=version == 4 or _TABLE.flag(config, "ipv6.dhcp.stateful"),
        expiry=_TABLE.text(config, f"{prefix}.dhcp.expiry"),
        gateway=_TABLE.get(config, "ipv4.dhcp.gateway") if version == 4 else None,
        ranges=tuple(_TABLE.get(config, f"{prefix}.dhcp.ranges") or ()),
        firewall=_TABLE.flag(config, f"{prefix}.firewall"),
        nat=_TABLE.flag(config, f"{prefix}.nat"),
        nat_address=_TABLE.get(config, f"{prefix}.nat.address"),
        nat_after=_TABLE.text(config, f"{prefix}.nat.order") == "after",
        routes=tuple(_TABLE.get(config, f"{prefix}.routes") or ()),
        routing=_TABLE.flag(config, f"{prefix}.routing"),
    )


def _tunnel_names(config: Mapping[str, str]) -> list[str]:
    return sorted({match[1] for key, text in config.items() if text and (match := _TUNNEL_KEY.fullmatch(key))})


def _tunnel(config: Mapping[str, str], name: str) -> Tunnel:
    prefix = f"tunnel.{name}"
    protocol = _TABLE.text(config, f"{prefix}.protocol")
    if not protocol:
        raise BadRequest(f"Tunnel {name!r} has no protocol", hint=f"set {prefix}.protocol to vxlan or gre")
    tunnel = Tunnel(
        name=name,
        protocol=TunnelProtocol(protocol),
        local=_TABLE.get(config, f"{prefix}.local"),
        remote=_TABLE.get(config, f"{prefix}.remote"),
        group=_TABLE.get(config, f"{prefix}.group"),
        id=_TABLE.get(config, f"{prefix}.id"),
        port=_TABLE.get(config, f"{prefix}.port"),
        ttl=_TABLE.get(config, f"{prefix}.ttl"),
        interface=_TABLE.text(config, f"{prefix}.interface"),
    )
    if tunnel.protocol is TunnelProtocol.GRE and not (tunnel.local and tunnel.remote):
        raise BadRequest(f"Tunnel {name!r} of protocol gre needs a local and a remote address")
    return tunnel


def _check(settings: Settings) -> None:
    for family in settings.families:
        _check_ranges(family)
    if any(len(f"{settings.name}-{tunnel.name}") > 15 for tunnel in settings.tunnels):
        raise BadRequest(f"Network and tunnel name together are longer than 14 characters: {settings.name!r}")
    smallest = 1280 if settings.v6.interface else 68
    if settings.mtu < smallest:
        raise BadRequest(f"Network option 'bridge.mtu' must be at least {smallest} for this network")


def check_nic(settings: Settings, device: Mapping[str, str]) -> None:
    """BadRequest for an address that a NIC of this network, whose keys are valid by themselves, could never get. Where DHCP is
    off it may have one that it is held to: the guest sets that itself."""
    for family in settings.families:
        text = device.get(f"ipv{family.version}.address") or "none"
        is_held = parse_bool(device.get(f"security.ipv{family.version}_filtering") or "false")
        if text != "none" and (family.reserves or not is_held):
            _check_address(settings.name, family, text)


def _check_address(network: str, family: IpSettings, text: str) -> None:
    if family.interface is None or not family.reserves:
        version = f"ipv{family.version}"
        what = "DHCP is" if family.version == 4 else 'DHCP or "ipv6.dhcp.stateful" are'
        unless = f"(unless using security.{version}_filtering)"
        raise BadRequest(f'Cannot specify "{version}.address" when {what} disabled {unless} on network "{network}"')
    address = ip_address(text)
    if address not in family.interface.network:
        hint = f"which is {family.interface.network}"
        raise BadRequest(f'Device IP address "{address}" not within network "{network}" subnet', hint=hint)
    if address == family.interface.ip:
        raise BadRequest(f'IP address "{address}" is assigned to parent managed network device "{network}"')


def _check_ranges(family: IpSettings) -> None:
    """Ranges of DHCP lie in the subnet."""
    if family.interface is None:
        return
    network: IpNetwork = family.interface.network
    for entry in family.ranges:
        if entry.first not in network or entry.last not in network:
            raise BadRequest(f"DHCP range {entry.first}-{entry.last} is not within the network's subnet {network}")
