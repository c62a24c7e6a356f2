"""Network values: addresses, subnets, ranges, interfaces, VLANs, listen addresses, URLs and proxy end points.

`ipaddress` and `urllib` are imported where they are used: half of the import time of the package would be theirs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from atoll.config.values import UINT32, ValueType, integer, list_of, matching, or_word, parse_integer, quoted

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

    Address = IPv4Address | IPv6Address
    Interface = IPv4Interface | IPv6Interface
    Network = IPv4Network | IPv6Network

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DOMAIN = rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*\.?"
_URL = r"https?://[^\s/?#@]+(?:[/?#]\S*)?"
_PORTS = r"[0-9]{1,5}(?:-[0-9]{1,5})?"


class Listen(NamedTuple):
    """Where to listen: `host` is a name or an address without brackets ("" for all), `port` None for the default."""

    host: str
    port: int | None


class AddressRange(NamedTuple):
    """Addresses from `first` to `last`, both included; a single one has them equal."""

    first: Address
    last: Address


class ProxyAddress(NamedTuple):
    """One end of a proxy device: `protocol` is tcp, udp or unix. A unix path has no ports; `@name` is abstract."""

    protocol: str
    host: str
    ports: tuple[int, ...]

    @property
    def abstract(self) -> bool:
        """A unix socket that has no file."""
        return self.protocol == "unix" and self.host.startswith("@")


def _address(text: str, version: int | None) -> Address:
    import ipaddress

    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        address = None  # answered below, with the message that clients know
    # A zone index ("fe80::1%eth0") is parsed by ipaddress, but no consumer of these values takes one.
    if address is None or (version and address.version != version) or "%" in text:
        raise ValueError(f"Not an IP{f'v{version}' if version else ''} address: {quoted(text)}")
    return address


def _interface(text: str, version: int | None) -> Interface:
    import ipaddress

    host, slash, length = text.partition("/")
    kind = f"IP{f'v{version}' if version else ''}"
    if not slash or not length.isascii() or not length.isdigit():
        raise ValueError(f"Not an {kind} address in CIDR notation: {quoted(text)}")
    address = _address(host, version)
    if int(length[:4]) > address.max_prefixlen:
        raise ValueError(f"Not an {kind} address in CIDR notation: {quoted(text)}")
    return ipaddress.ip_interface(text)


def _address_or_interface(text: str, version: int | None) -> Address | Interface:
    return _interface(text, version) if "/" in text else _address(text, version)


def _network(text: str, version: int | None) -> Network:
    interface = _interface(text, version)
    if interface.ip != interface.network.network_address:
        kind = f"IP{f'v{version}' if version else ''}"
        raise ValueError(f"Not an {kind} network {quoted(text)}: the subnet is {interface.network}")
    return interface.network


def _range(text: str, version: int | None) -> AddressRange:
    first, dash, last = text.partition("-")
    low = _address(first.strip(), version)
    high = _address(last.strip(), version) if dash else low
    if low.version != high.version or int(low) > int(high):
        raise ValueError(f"Invalid address range {quoted(text)}: the first must not be above the last")
    return AddressRange(low, high)


def _versioned(name: str, parse: Callable[[str, int | None], object], version: int | None) -> ValueType:
    return ValueType(name, lambda text: parse(text, version))


IPV4 = _versioned("IPv4 address", _address, 4)
IPV6 = _versioned("IPv6 address", _address, 6)
IP = _versioned("IP address", _address, None)
IPV4_CIDR = _versioned("IPv4 CIDR", _interface, 4)
IPV6_CIDR = _versioned("IPv6 CIDR", _interface, 6)
IPV4_OR_CIDR = _versioned("IPv4 address or CIDR", _address_or_interface, 4)
IPV6_OR_CIDR = _versioned("IPv6 address or CIDR", _address_or_interface, 6)
IPV4_NETWORK = _versioned("IPv4 subnet", _network, 4)
IPV6_NETWORK = _versioned("IPv6 subnet", _network, 6)
IPV4_RANGE = _versioned("IPv4 range", _range, 4)
IPV6_RANGE = _versioned("IPv6 range", _range, 6)
MAC = matching("MAC address", r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
INFINIBAND_MAC = matching("InfiniBand address", r"[0-9a-fA-F]{2}((:[0-9a-fA-F]{2}){7}|(:[0-9a-fA-F]{2}){19})")
INTERFACE = matching("interface name", r"(?!\.{1,2}$)[a-zA-Z0-9_.:][a-zA-Z0-9_.:-]{0,14}")
NAME = matching("name", r"(?!\.{1,2}$)[^-/\s,\x00-\x1f][^/\s,\x00-\x1f]{0,254}")
MTU = integer(68, 65535)
ASN = integer(1, 4294967294)
PORT = integer(0, 65535)
VLAN = integer(1, 4094)
VLAN_OR_NONE = or_word(VLAN, "none")
SRIOV_VLAN = integer(0, 4094)
ROUTE_TABLE = UINT32
DHCP_LEASE = matching("lease time", r"[0-9]{1,9}[smhdw]?|infinite")


def parse_vlan_ids(text: str) -> tuple[int, ...]:
    """VLAN ids of `3,4-6`, each of 1 to 4094, in the order given."""
    ids: list[int] = []
    for item in text.split(","):
        first, dash, last = item.strip().partition("-")
        low = int(VLAN.parse(first))
        high = int(VLAN.parse(last)) if dash else low
        if high < low:
            raise ValueError(f"Invalid VLAN range {quoted(item)}")
        ids.extend(range(low, high + 1))
    return tuple(ids)


def parse_domain(text: str) -> str:
    """A DNS name; its labels are letters, digits, `-` and `_`."""
    if not re.fullmatch(_DOMAIN, text, re.ASCII):
        raise ValueError(f"Invalid DNS name {quoted(text)}")
    return text


def parse_url(text: str) -> str:
    """An http or https URL with a host and without credentials."""
    if not re.fullmatch(_URL, text, re.ASCII):
        raise ValueError(f"Invalid URL {quoted(text)}")
    return text


def listen(*, wildcard: bool = True) -> ValueType:
    """`host`, `host:port`, `[v6]`, `[v6]:port`, `:port`, a bare v6; `wildcard` admits addresses that mean "all"."""

    def parse(text: str) -> Listen:
        address = _split_listen(text)
        if not wildcard and address.host in ("", "0.0.0.0", "::"):
            raise ValueError(f"Invalid address {quoted(text)}: a wildcard address is not allowed here")
        return address

    return ValueType("listen address", parse)


def _split_listen(text: str) -> Listen:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"Invalid listen address {quoted(text)}")
        return Listen(str(_address(host, 6)), _listen_port(rest[1:], text) if rest else None)
    if text.count(":") > 1:
        return Listen(str(_address(text, 6)), None)
    host, colon, port = text.partition(":")
    if host and not re.fullmatch(_DOMAIN, host, re.ASCII):
        raise ValueError(f"Invalid listen address {quoted(text)}")
    if host and re.fullmatch(r"[0-9.]+", host):
        _address(host, 4)
    return Listen(host, _listen_port(port, text) if colon else None)


def _listen_port(text: str, whole: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= 65535:
        raise ValueError(f"Invalid port number in {quoted(whole)}")
    return int(text)


def parse_proxy_address(text: str) -> ProxyAddress:
    """`<tcp|udp>:<address>:<port>[-<port>][,<port>]` or `unix:<path>`; a v6 address is in brackets."""
    protocol, colon, rest = text.partition(":")
    if protocol == "unix" and colon and (rest.startswith(("/", "@"))) and len(rest) > 1:
        return ProxyAddress("unix", rest, ())
    host, port_colon, ports = rest.rpartition(":")
    if protocol not in ("tcp", "udp") or not port_colon or not host:
        raise ValueError(f"Invalid proxy address {quoted(text)}: expected <type>:<addr>:<port>[-<port>][,<port>]")
    # A name would be looked up by whoever connects, inside the instance or outside: only addresses are taken.
    bracketed = host.startswith("[") and host.endswith("]")
    address = _address(host[1:-1], 6) if bracketed else _address(host, 4)
    return ProxyAddress(protocol, str(address), _parse_ports(ports, text))


def _parse_ports(ports: str, whole: str) -> tuple[int, ...]:
    found: list[int] = []
    for item in ports.split(","):
        if not re.fullmatch(_PORTS, item, re.ASCII):
            raise ValueError(f"Invalid port number in {quoted(whole)}")
        first, dash, last = item.partition("-")
        low, high = parse_integer(first), parse_integer(last if dash else first)
        if not 1 <= low <= high <= 65535:
            raise ValueError(f"Invalid port range in {quoted(whole)}")
        found.extend(range(low, high + 1))
    return tuple(found)


VLAN_IDS = ValueType("list of VLAN ids", parse_vlan_ids)
DOMAIN = ValueType("DNS name", parse_domain)
URL = ValueType("URL", parse_url)
LISTEN = listen()
LISTEN_NO_WILDCARD = listen(wildcard=False)
PROXY_ADDRESS = ValueType("proxy address", parse_proxy_address)
IPV4_NETWORKS = list_of(IPV4_NETWORK)
IPV6_NETWORKS = list_of(IPV6_NETWORK)
NAMES = list_of(NAME)
