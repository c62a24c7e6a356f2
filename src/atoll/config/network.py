"""The keys of managed networks, per type, and of what hangs on them: ACLs, forwards, peers, zones and their records."""

from __future__ import annotations

from atoll.config import netvalues
from atoll.config.server import USER
from atoll.config.table import Key, KeyTable, Scope
from atoll.config.values import BLOB, BOOL, TEXT, integer, list_of, matching, one_of, or_word, quoted
from atoll.domain.errors import BadRequest

_LOCAL = Scope.LOCAL
_ONE_LABEL = r"[A-Za-z0-9_-]{1,64}"
_UNKNOWN, _INVALID = 'Invalid option "{key}"', 'Invalid value for option "{key}": {why}'
_ADDRESS_V4 = or_word(netvalues.IPV4_CIDR, "none", "auto")
_ADDRESS_V6 = or_word(netvalues.IPV6_CIDR, "none", "auto")
_NAT_ORDER = one_of("before", "after")
_MTU = Key("mtu", netvalues.MTU, "", "MTU of the interfaces", since="network_type_macvlan")
_VLAN = Key("vlan", netvalues.SRIOV_VLAN, "", "VLAN id to attach to", since="network_vlan")
_GVRP = Key("gvrp", BOOL, "false", "Whether to register the VLAN by GVRP", since="network_gvrp")

_MAAS = tuple(
    Key(f"maas.subnet.{v}", TEXT, "", f"MAAS subnet in which instances get their {p} address", since="maas_network")
    for v, p in (("ipv4", "IPv4"), ("ipv6", "IPv6"))
)

_BGP_PEERS = (
    Key("bgp.peers.*.address", netvalues.IP, "", "Address of the peer", since="network_bgp", wild=_ONE_LABEL),
    Key("bgp.peers.*.asn", netvalues.ASN, "", "AS number of the peer", since="network_bgp", wild=_ONE_LABEL),
    Key("bgp.peers.*.password", TEXT, "", "Password of the session", since="network_bgp", wild=_ONE_LABEL,
        shown_default="no password"),
)  # fmt: skip


def _parent(doc: str, since: str) -> Key:
    return Key("parent", netvalues.INTERFACE, "", doc, scope=_LOCAL, since=since)


def _acls(since: str) -> tuple[Key, ...]:
    return (
        Key("security.acls", netvalues.NAMES, "", "ACLs that apply to the network's NICs", live=True, since=since),
        *(
            key
            for way in ("egress", "ingress")
            for key in (
                Key(f"security.acls.default.{way}.action", one_of("allow", "drop", "reject"), "reject",
                    f"What happens to {way} traffic that no rule matches", live=True, since=since,
                    condition="security.acls"),
                Key(f"security.acls.default.{way}.logged", BOOL, "false",
                    f"Whether {way} traffic that no rule matches is logged", live=True, since=since,
                    condition="security.acls"),
            )
        ),
    )  # fmt: skip


def _dns(since: str) -> tuple[Key, ...]:
    return (
        Key("dns.domain", netvalues.DOMAIN, "lxd", "Domain for DHCP clients and name resolution", live=True,
            since=since),
        Key("dns.search", list_of(netvalues.DOMAIN), "", "Domains that clients search", live=True,
            since="network_dns_search", shown_default="`dns.domain`"),
        Key("dns.zone.forward", netvalues.DOMAIN, "", "Zone of the forward records", live=True, since="network_dns"),
        Key("dns.zone.reverse.ipv4", netvalues.DOMAIN, "", "Zone of the IPv4 reverse records", live=True,
            since="network_dns"),
        Key("dns.zone.reverse.ipv6", netvalues.DOMAIN, "", "Zone of the IPv6 reverse records", live=True,
            since="network_dns"),
    )  # fmt: skip


_BRIDGE = (
    Key("bgp.ipv4.nexthop", netvalues.IPV4, "", "Next hop of the prefixes advertised", scope=_LOCAL,
        since="network_bgp", shown_default="local address"),
    Key("bgp.ipv6.nexthop", netvalues.IPV6, "", "Next hop of the prefixes advertised", scope=_LOCAL,
        since="network_bgp", shown_default="local address"),
    *_BGP_PEERS,
    Key("bridge.driver", one_of("native", "openvswitch"), "native", "Kind of bridge", since="network"),
    Key("bridge.external_interfaces", list_of(netvalues.INTERFACE), "",
        "Interfaces of the host, without addresses, that join the bridge", live=True, scope=_LOCAL, since="network"),
    Key("bridge.hwaddr", netvalues.MAC, "", "MAC address of the bridge", live=True, since="network_hwaddr"),
    Key("bridge.mode", one_of("standard", "fan"), "standard", "Mode of the bridge", since="network"),
    Key("bridge.mtu", netvalues.MTU, "", "MTU of the bridge", live=True, since="network",
        shown_default="1500, less under a tunnel or fan"),
    *_dns("network"),
    Key("dns.mode", one_of("managed", "dynamic", "none"), "managed",
        "Who makes DNS records: the server, the clients, or nobody", live=True, since="network"),
    Key("fan.overlay_subnet", netvalues.IPV4_NETWORK, "240.0.0.0/8", "Overlay of the fan", condition="fan mode",
        since="network"),
    Key("fan.type", one_of("vxlan", "ipip"), "vxlan", "Tunnels of the fan", condition="fan mode", since="network"),
    Key("fan.underlay_subnet", or_word(netvalues.IPV4_NETWORK, "auto"), "", "Underlay of the fan",
        condition="fan mode", since="network", shown_default="auto, when created"),
)  # fmt: skip

_BRIDGE_IPV4 = (
    Key("ipv4.address", _ADDRESS_V4, "", "Address of the bridge, `none`, or `auto` for an unused subnet", live=True,
        condition="standard mode", since="network", shown_default="auto, when created"),
    Key("ipv4.dhcp", BOOL, "true", "Whether to offer addresses by DHCP", live=True, condition="IPv4 address",
        since="network"),
    Key("ipv4.dhcp.expiry", netvalues.DHCP_LEASE, "1h", "When leases expire", live=True, condition="IPv4 DHCP",
        since="network_dhcp_expiry"),
    Key("ipv4.dhcp.gateway", netvalues.IPV4, "", "Gateway offered by DHCP", live=True, condition="IPv4 DHCP",
        since="network_dhcp_gateway", shown_default="`ipv4.address`"),
    Key("ipv4.dhcp.ranges", list_of(netvalues.IPV4_RANGE), "", "Ranges of DHCP, FIRST-LAST", live=True,
        condition="IPv4 DHCP", since="network", shown_default="all addresses"),
    Key("ipv4.firewall", BOOL, "true", "Whether to make firewall rules for the network", live=True,
        condition="IPv4 address", since="network_firewall_filtering"),
    Key("ipv4.nat", BOOL, "false", "Whether to translate outgoing traffic", live=True, condition="IPv4 address",
        since="network", shown_default="true where the address was generated"),
    Key("ipv4.nat.address", netvalues.IPV4, "", "Source address of outgoing traffic", live=True,
        condition="IPv4 address", since="network_nat_address"),
    Key("ipv4.nat.order", _NAT_ORDER, "before", "Whether NAT rules go before or after those of others", live=True,
        condition="IPv4 address", since="network_nat_order"),
    Key("ipv4.ovn.ranges", list_of(netvalues.IPV4_RANGE), "", "Ranges for routers of OVN networks, FIRST-LAST",
        live=True, since="network_type_ovn"),
    Key("ipv4.routes", netvalues.IPV4_NETWORKS, "", "More subnets to route to the bridge", live=True,
        condition="IPv4 address", since="network_routes"),
    Key("ipv4.routing", BOOL, "true", "Whether to route traffic in and out of the bridge", live=True,
        condition="IPv4 address", since="network"),
)  # fmt: skip

_BRIDGE_IPV6 = (
    Key("ipv6.address", _ADDRESS_V6, "", "Address of the bridge, `none`, or `auto` for an unused subnet", live=True,
        condition="standard mode", since="network", shown_default="auto, when created"),
    Key("ipv6.dhcp", BOOL, "true", "Whether to offer configuration by DHCP", live=True, condition="IPv6 address",
        since="network"),
    Key("ipv6.dhcp.expiry", netvalues.DHCP_LEASE, "1h", "When leases expire", live=True, condition="IPv6 DHCP",
        since="network_dhcp_expiry"),
    Key("ipv6.dhcp.ranges", list_of(netvalues.IPV6_RANGE), "", "Ranges of DHCP, FIRST-LAST", live=True,
        condition="IPv6 stateful DHCP", since="network", shown_default="all addresses"),
    Key("ipv6.dhcp.stateful", BOOL, "false", "Whether DHCP offers addresses", live=True, condition="IPv6 DHCP",
        since="network"),
    Key("ipv6.firewall", BOOL, "true", "Whether to make firewall rules for the network", live=True,
        condition="IPv6 address", since="network_firewall_filtering"),
    Key("ipv6.nat", BOOL, "false", "Whether to translate outgoing traffic", live=True, condition="IPv6 address",
        since="network", shown_default="true where the address was generated"),
    Key("ipv6.nat.address", netvalues.IPV6, "", "Source address of outgoing traffic", live=True,
        condition="IPv6 address", since="network_nat_address"),
    Key("ipv6.nat.order", _NAT_ORDER, "before", "Whether NAT rules go before or after those of others", live=True,
        condition="IPv6 address", since="network_nat_order"),
    Key("ipv6.ovn.ranges", list_of(netvalues.IPV6_RANGE), "", "Ranges for routers of OVN networks, FIRST-LAST",
        live=True, since="network_type_ovn"),
    Key("ipv6.routes", netvalues.IPV6_NETWORKS, "", "More subnets to route to the bridge", live=True,
        condition="IPv6 address", since="network_routes"),
    Key("ipv6.routing", BOOL, "true", "Whether to route traffic in and out of the bridge", live=True,
        condition="IPv6 address", since="network"),
)  # fmt: skip

_TUNNELS = (
    Key("tunnel.*.group", netvalues.IP, "239.0.0.1", "Multicast group, where local and remote are unset",
        condition="vxlan", since="network", wild=_ONE_LABEL),
    Key("tunnel.*.id", integer(0, 2**24 - 1), "0", "Id of the tunnel", condition="vxlan", since="network",
        wild=_ONE_LABEL),
    Key("tunnel.*.interface", netvalues.INTERFACE, "", "Interface of the host that carries the tunnel",
        condition="vxlan", since="network_vxlan_interface", wild=_ONE_LABEL),
    Key("tunnel.*.local", netvalues.IP, "", "Local address", condition="gre or vxlan", since="network",
        wild=_ONE_LABEL),
    Key("tunnel.*.port", netvalues.PORT, "0", "Port of the tunnel", condition="vxlan", since="network",
        wild=_ONE_LABEL),
    Key("tunnel.*.protocol", one_of("gre", "vxlan"), "", "Protocol of the tunnel", condition="standard mode",
        since="network", wild=_ONE_LABEL),
    Key("tunnel.*.remote", netvalues.IP, "", "Remote address", condition="gre or vxlan", since="network",
        wild=_ONE_LABEL),
    Key("tunnel.*.ttl", integer(1, 255), "1", "Hops that multicast packets may take", condition="vxlan",
        since="network_vxlan_ttl", wild=_ONE_LABEL),
)  # fmt: skip

_RAW_DNSMASQ = Key("raw.dnsmasq", BLOB, "", "Lines appended to the configuration of dnsmasq", live=True, since="network")


def _uplink(v: str) -> tuple[Key, ...]:
    """What a physical network says of one address family to the OVN networks on it."""
    cidr, ranges, networks = {
        "ipv4": (netvalues.IPV4_CIDR, netvalues.IPV4_RANGE, netvalues.IPV4_NETWORKS),
        "ipv6": (netvalues.IPV6_CIDR, netvalues.IPV6_RANGE, netvalues.IPV6_NETWORKS),
    }[v]
    return (
        Key(f"{v}.gateway", cidr, "", "Gateway and network, as CIDR", condition="standard mode",
            since="network_type_physical"),
        Key(f"{v}.ovn.ranges", list_of(ranges), "", "Ranges for routers of OVN networks, FIRST-LAST",
            since="network_type_physical"),
        Key(f"{v}.routes", networks, "", "Subnets that OVN networks may use in `routes.external`",
            since="network_ovn_external_subnets"),
        Key(f"{v}.routes.anycast", BOOL, "false", "Whether several NICs may have the same of these subnets",
            since="network_physical_routes_anycast"),
    )  # fmt: skip


_PHYSICAL = (
    _GVRP,
    _MTU,
    _parent("Interface of the host to use", "network_type_physical"),
    _VLAN,
    *_BGP_PEERS,
    Key("dns.nameservers", list_of(netvalues.IP), "", "DNS servers of the network", condition="standard mode",
        since="network_type_physical"),
    *_uplink("ipv4"),
    *_uplink("ipv6"),
    *_MAAS,
    Key("ovn.ingress_mode", one_of("l2proxy", "routed"), "l2proxy",
        "How external addresses of OVN NICs are announced: by proxy ARP/NDP, or routed",
        since="network_physical_ovn_ingress_mode"),
)  # fmt: skip

_OVN = (
    Key("bridge.hwaddr", netvalues.MAC, "", "MAC address of the router", since="network_type_ovn"),
    Key("bridge.mtu", netvalues.MTU, "1442", "MTU of the network", since="network_type_ovn"),
    *_dns("network_type_ovn"),
    Key("ipv4.address", _ADDRESS_V4, "", "Address of the router, `none`, or `auto`", since="network_type_ovn",
        shown_default="auto, when created"),
    Key("ipv4.dhcp", BOOL, "true", "Whether to offer addresses by DHCP", since="network_ovn_dhcp"),
    Key("ipv4.nat", BOOL, "false", "Whether to translate outgoing traffic", since="network_ovn_nat"),
    Key("ipv4.nat.address", netvalues.IPV4, "", "Source address of outgoing traffic", since="network_ovn_nat_address"),
    Key("ipv6.address", _ADDRESS_V6, "", "Address of the router, `none`, or `auto`", since="network_type_ovn",
        shown_default="auto, when created"),
    Key("ipv6.dhcp", BOOL, "true", "Whether to offer configuration by DHCP", since="network_ovn_dhcp"),
    Key("ipv6.dhcp.stateful", BOOL, "false", "Whether DHCP offers addresses", since="network_type_ovn"),
    Key("ipv6.nat", BOOL, "false", "Whether to translate outgoing traffic", since="network_ovn_nat"),
    Key("ipv6.nat.address", netvalues.IPV6, "", "Source address of outgoing traffic", since="network_ovn_nat_address"),
    Key("network", netvalues.NAME, "", "Uplink network", since="network_type_ovn"),
    *_acls("network_ovn_acl_defaults"),
    Key("volatile.network.ipv4.address", netvalues.IPV4, "", "Address on the uplink network"),
    Key("volatile.network.ipv6.address", netvalues.IPV6, "", "Address on the uplink network"),
)  # fmt: skip


def _table(name: str, *keys: Key) -> KeyTable:
    return KeyTable(name, (*keys, USER), unknown=_UNKNOWN, invalid=_INVALID)


_NETWORKS = {
    "bridge": _table(
        "bridge network", *_BRIDGE, *_BRIDGE_IPV4, *_BRIDGE_IPV6, *_MAAS, _RAW_DNSMASQ, *_acls("network_bridge_acl"),
        *_TUNNELS,
    ),
    "macvlan": _table(
        "macvlan network", _GVRP, _MTU, _parent("Interface of the host under the NICs", "network_type_macvlan"), _VLAN,
        *_MAAS,
    ),
    "sriov": _table(
        "sriov network", _MTU, _parent("Interface of the host whose functions are used", "network_type_sriov"), _VLAN,
        *_MAAS,
    ),
    "physical": _table("physical network", *_PHYSICAL),
    "ovn": _table("ovn network", *_OVN),
}  # fmt: skip
NETWORK_TYPES = tuple(_NETWORKS)

NETWORK_ACL = _table("network ACL")
NETWORK_PEER = _table("network peer")
NETWORK_ZONE_RECORD = _table("network zone record")
NETWORK_FORWARD = _table(
    "network forward",
    Key("target_address", netvalues.IP, "", "Where traffic goes that no port of the forward takes", live=True,
        since="network_forward"),
)  # fmt: skip
NETWORK_ZONE = _table(
    "network zone",
    Key("dns.nameservers", list_of(netvalues.DOMAIN), "", "Names of the zone's DNS servers, for NS records", live=True,
        since="network_dns"),
    Key("network.nat", BOOL, "true", "Whether to make records for subnets behind NAT", live=True,
        since="network_dns_nat"),
    Key("peers.*.address", netvalues.IP, "", "Address of a DNS server that may transfer the zone", live=True,
        since="network_dns", wild=_ONE_LABEL),
    Key("peers.*.key", matching("TSIG key", r"[A-Za-z0-9+/=]{1,512}"), "", "TSIG key of that server", live=True,
        since="network_dns", wild=_ONE_LABEL),
)  # fmt: skip


def network_table(network_type: str) -> KeyTable:
    """The keys of managed networks of one type."""
    table = _NETWORKS.get(network_type)
    if table is None:
        raise BadRequest(f"Invalid network type {quoted(network_type)} (not one of {', '.join(NETWORK_TYPES)})")
    return table
