"""The keys of NIC devices, per nictype."""

from __future__ import annotations

from collections.abc import Mapping

from atoll.config import netvalues
from atoll.config.table import Key
from atoll.config.values import BITRATE, BOOL, TEXT, UINT32, list_of, one_of, or_word
from atoll.domain.errors import BadRequest

# Keys that come from the managed network, where a NIC names one. An ovn NIC always does, so it may say its nictype too.
_FROM_NETWORK = ("nictype", "parent", "mtu", "maas.subnet.ipv4", "maas.subnet.ipv6")
_FROM_VLAN_NETWORK = (*_FROM_NETWORK, "vlan", "gvrp")
MANAGED = {
    "bridged": _FROM_NETWORK,
    "macvlan": _FROM_VLAN_NETWORK,
    "sriov": _FROM_VLAN_NETWORK,
    "ovn": (),
}
_NEEDS_PARENT = ("bridged", "macvlan", "sriov", "physical", "ipvlan")

_BOOT_PRIORITY = Key("boot.priority", UINT32, "", "Order of booting from it, highest first",
                     condition="virtual machine", since="vm_boot_priority")  # fmt: skip
_HOST_NAME = Key("host_name", netvalues.INTERFACE, "", "Name of the interface on the host", shown_default="random")
_HWADDR = Key("hwaddr", netvalues.MAC, "", "MAC address of the interface", shown_default="random")
_NAME = Key("name", netvalues.INTERFACE, "", "Name of the interface in the instance", shown_default="by the kernel")
_MTU = Key("mtu", netvalues.MTU, "", "MTU of the interface", shown_default="the parent's")
_PARENT = Key("parent", netvalues.INTERFACE, "", "Interface or bridge of the host")
_NETWORK = Key("network", netvalues.NAME, "", "Managed network, in place of `nictype` and `parent`",
               since="instance_nic_network")  # fmt: skip
_GVRP = Key("gvrp", BOOL, "false", "Whether to register the VLAN by GVRP", since="network_gvrp")
_MAC_FILTERING = Key("security.mac_filtering", BOOL, "false", "Whether to drop frames with another's MAC address",
                     live=True, since="network")  # fmt: skip
_MAAS = tuple(
    Key(f"maas.subnet.{v}", TEXT, "", f"MAAS subnet of the {p} address", since="maas_network")
    for v, p in (("ipv4", "IPv4"), ("ipv6", "IPv6"))
)
_LIMITS = (
    Key("limits.egress", BITRATE, "", "Outgoing traffic in bits a second, at most", live=True),
    Key("limits.ingress", BITRATE, "", "Incoming traffic in bits a second, at most", live=True),
    Key("limits.max", BITRATE, "", "Outgoing and incoming traffic in bits a second, at most", live=True),
)
_ROUTES = (
    Key("ipv4.routes", netvalues.IPV4_NETWORKS, "", "Subnets that the host routes to the NIC", live=True,
        since="container_nic_routes"),
    Key("ipv6.routes", netvalues.IPV6_NETWORKS, "", "Subnets that the host routes to the NIC", live=True,
        since="container_nic_routes"),
)  # fmt: skip
_ROUTES_EXTERNAL = (
    Key("ipv4.routes.external", netvalues.IPV4_NETWORKS, "", "Subnets routed to the NIC and published on the uplink",
        live=True, since="network_bgp"),
    Key("ipv6.routes.external", netvalues.IPV6_NETWORKS, "", "Subnets routed to the NIC and published on the uplink",
        live=True, since="network_bgp"),
)  # fmt: skip


def _vlan(since: str) -> Key:
    return Key("vlan", netvalues.VLAN, "", "VLAN id to attach to", since=since)


def _host_tables(since: str) -> tuple[Key, ...]:
    return tuple(
        Key(f"{v}.host_table", netvalues.ROUTE_TABLE, "", "Routing table that gets the routes too", since=since)
        for v in ("ipv4", "ipv6")
    )


_BRIDGED = (
    _BOOT_PRIORITY, _HOST_NAME, _HWADDR,
    Key("ipv4.address", or_word(netvalues.IPV4, "none"), "", "Address to assign by DHCP, or `none` to filter IPv4",
        live=True, since="network"),
    Key("ipv6.address", or_word(netvalues.IPV6, "none"), "", "Address to assign by DHCP, or `none` to filter IPv6",
        live=True, since="network"),
    *_ROUTES, *_ROUTES_EXTERNAL, *_LIMITS, *_MAAS, _MTU, _NAME, _NETWORK, _PARENT,
    Key("security.ipv4_filtering", BOOL, "false", "Whether to drop packets with another's IPv4 address", live=True,
        since="container_nic_ipfilter"),
    Key("security.ipv6_filtering", BOOL, "false", "Whether to drop packets with another's IPv6 address", live=True,
        since="container_nic_ipfilter"),
    _MAC_FILTERING,
    Key("security.port_isolation", BOOL, "false", "Whether to keep it from other NICs that are isolated",
        since="instance_nic_bridged_port_isolation"),
    Key("vlan", netvalues.VLAN_OR_NONE, "", "VLAN of untagged traffic; `none` leaves the default VLAN",
        since="instance_nic_bridged_vlan"),
    Key("vlan.tagged", netvalues.VLAN_IDS, "", "VLANs of tagged traffic, like `3,4-6`",
        since="instance_nic_bridged_vlan"),
)  # fmt: skip

_OVN = (
    Key("acceleration", one_of("none", "sriov"), "none", "Hardware offloading", since="ovn_nic_acceleration"),
    _BOOT_PRIORITY, _HOST_NAME, _HWADDR,
    Key("ipv4.address", netvalues.IPV4, "", "Address to assign by DHCP", since="network_type_ovn"),
    Key("ipv6.address", netvalues.IPV6, "", "Address to assign by DHCP", since="network_type_ovn"),
    *_ROUTES, *_ROUTES_EXTERNAL, _NAME, _NETWORK,
    Key("security.acls", netvalues.NAMES, "", "ACLs that apply to it", live=True, since="network_ovn_acl"),
    *(
        key
        for way in ("egress", "ingress")
        for key in (
            Key(f"security.acls.default.{way}.action", one_of("allow", "drop", "reject"), "reject",
                f"What happens to {way} traffic that no rule matches", live=True, since="network_ovn_acl_defaults"),
            Key(f"security.acls.default.{way}.logged", BOOL, "false",
                f"Whether {way} traffic that no rule matches is logged", live=True, since="network_ovn_acl_defaults"),
        )
    ),
)  # fmt: skip

_IPVLAN_IPV4 = or_word(netvalues.IPV4, "auto", "none")
_IPVLAN_IPV6 = or_word(netvalues.IPV6, "auto", "none")
_IPVLAN = (
    _GVRP, _HWADDR,
    Key("ipv4.address", list_of(netvalues.IPV4_OR_CIDR), "", "Static addresses; as CIDR in `l2` mode"),
    Key("ipv4.gateway", _IPVLAN_IPV4, "", "`auto` or `none` in `l3s` mode, the gateway's address in `l2` mode",
        since="container_nic_ipvlan_gateway", shown_default="auto in `l3s` mode"),
    Key("ipv6.address", list_of(netvalues.IPV6_OR_CIDR), "", "Static addresses; as CIDR in `l2` mode"),
    Key("ipv6.gateway", _IPVLAN_IPV6, "", "`auto` or `none` in `l3s` mode, the gateway's address in `l2` mode",
        since="container_nic_ipvlan_gateway", shown_default="auto in `l3s` mode"),
    *_host_tables("container_nic_ipvlan_host_table"),
    Key("mode", one_of("l2", "l3s"), "l3s", "Mode of the link", since="container_nic_ipvlan_mode"),
    _MTU, _NAME, _PARENT, _vlan("container_nic_ipvlan"),
)  # fmt: skip

_ROUTED = (
    _GVRP, _HOST_NAME, _HWADDR,
    Key("ipv4.address", list_of(netvalues.IPV4), "", "Static addresses"),
    Key("ipv4.gateway", one_of("auto", "none"), "auto", "Whether to add a default gateway",
        since="container_nic_routed_gateway"),
    Key("ipv4.host_address", netvalues.IPV4, "169.254.0.1", "Address of the host's side",
        since="container_nic_routed_host_address"),
    Key("ipv4.neighbor_probe", BOOL, "true", "Whether to look for the addresses on the parent's network first",
        since="instance_nic_routed_neighbor_probe"),
    Key("ipv6.address", list_of(netvalues.IPV6), "", "Static addresses"),
    Key("ipv6.gateway", one_of("auto", "none"), "auto", "Whether to add a default gateway",
        since="container_nic_routed_gateway"),
    Key("ipv6.host_address", netvalues.IPV6, "fe80::1", "Address of the host's side",
        since="container_nic_routed_host_address"),
    Key("ipv6.neighbor_probe", BOOL, "true", "Whether to look for the addresses on the parent's network first",
        since="instance_nic_routed_neighbor_probe"),
    *_host_tables("container_nic_routed_host_table"), *_ROUTES, *_LIMITS, _MTU, _NAME, _PARENT,
    _vlan("container_nic_routed"),
)  # fmt: skip

KEYS: dict[str, tuple[Key, ...]] = {
    "bridged": _BRIDGED,
    "macvlan": (_BOOT_PRIORITY, _GVRP, _HWADDR, *_MAAS, _MTU, _NAME, _NETWORK, _PARENT, _vlan("network_vlan")),
    "sriov": (
        _BOOT_PRIORITY, _HWADDR, *_MAAS, _MTU, _NAME, _NETWORK, _PARENT, _MAC_FILTERING,
        Key("vlan", netvalues.SRIOV_VLAN, "", "VLAN id to attach to", since="network_vlan_sriov"),
    ),
    "ovn": _OVN,
    "physical": (_BOOT_PRIORITY, _GVRP, _HWADDR, *_MAAS, _MTU, _NAME, _PARENT, _vlan("network_vlan_physical")),
    "ipvlan": _IPVLAN,
    "p2p": (_BOOT_PRIORITY, _HOST_NAME, _HWADDR, *_ROUTES, *_LIMITS, _MTU, _NAME),
    "routed": _ROUTED,
}  # fmt: skip


def managed_keys() -> tuple[Key, ...]:
    """The keys of a NIC that names a network, as long as the network's type is not known: those of all managed kinds.

    Where kinds differ in a key (`vlan`), the widest one, the bridged, wins.
    """
    found: dict[str, Key] = {}
    for nictype in MANAGED:
        for key in KEYS[nictype]:
            found.setdefault(key.name, key)
    return tuple(found.values())


def check(device: Mapping[str, str], nictype: str) -> None:
    """What NIC keys ask of one another. `nictype` is "" where only the network tells it."""
    if device.get("network"):
        banned = MANAGED.get(nictype, ("nictype", "parent"))
        for name in banned:
            if device.get(name):
                raise BadRequest(f'Cannot use "{name}" property in conjunction with "network" property')
        return
    if nictype == "ovn":
        raise BadRequest('NIC of type ovn is missing the required "network" property')
    if nictype in _NEEDS_PARENT and not device.get("parent"):
        raise BadRequest(f'NIC of type {nictype} is missing the required "parent" property')
