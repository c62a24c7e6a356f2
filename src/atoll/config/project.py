"""The keys of projects: features, images, limits and restrictions."""

from __future__ import annotations

from atoll.config import hostvalues, netvalues
from atoll.config.server import ARCHITECTURES, USER
from atoll.config.table import Key, KeyTable
from atoll.config.values import BOOL, NATURAL, SIZE, UINT32, ValueType, list_of, one_of, or_word, quoted

_ALLOW = one_of("allow", "block")
_ALLOW_OR_MANAGED = one_of("allow", "block", "managed")


def _parse_uplink_subnet(text: str) -> tuple[str, object]:
    uplink, colon, subnet = text.partition(":")
    if not colon:
        raise ValueError(f"Invalid subnet {quoted(text)}: expected <uplink>:<subnet>")
    kind = netvalues.IPV6_NETWORK if ":" in subnet else netvalues.IPV4_NETWORK
    return str(netvalues.NAME.parse(uplink)), kind.parse(subnet)


_UPLINK_SUBNETS = list_of(ValueType("uplink subnet", _parse_uplink_subnet))

_FEATURES = (
    Key("features.images", BOOL, "true", "Images and aliases of its own", since="projects"),
    Key("features.networks", BOOL, "false", "Networks of its own", since="projects_networks"),
    Key("features.profiles", BOOL, "true", "Profiles of its own", since="projects"),
    Key("features.storage.volumes", BOOL, "true", "Custom storage volumes of its own", since="projects"),
)

_SERVER_OVERRIDES = (
    Key("backups.compression_algorithm", hostvalues.COMPRESSION, "", "Compression of backups in the project",
        since="projects_compression", shown_default="the server's"),
    Key("images.auto_update_cached", BOOL, "", "Whether to update cached images", since="projects_images_auto_update",
        shown_default="the server's"),
    Key("images.auto_update_interval", NATURAL, "", "Hours between looks for updates of cached images; 0 turns it off",
        since="projects_images_auto_update", shown_default="the server's"),
    Key("images.compression_algorithm", hostvalues.COMPRESSION, "", "Compression of new images in the project",
        since="projects_compression", shown_default="the server's"),
    Key("images.default_architecture", one_of(*ARCHITECTURES), "", "Architecture to prefer in a cluster of several",
        since="images_default_architecture", shown_default="the server's"),
    Key("images.remote_cache_expiry", NATURAL, "", "Days after which an unused cached image is removed",
        since="projects_images_remote_cache_expiry", shown_default="the server's"),
)  # fmt: skip

_LIMITS = (
    Key("limits.containers", UINT32, "", "Containers in the project, at most", since="projects_limits"),
    Key("limits.cpu", UINT32, "", "Sum of the instances' `limits.cpu`, at most", since="projects_limits"),
    Key("limits.disk", SIZE, "", "Space of all instance volumes, custom volumes and images together, at most",
        since="projects_limits_disk"),
    Key("limits.instances", UINT32, "", "Instances in the project, at most", since="projects_limits_instances"),
    Key("limits.memory", SIZE, "", "Sum of the instances' `limits.memory`, at most", since="projects_limits"),
    Key("limits.networks", UINT32, "", "Networks in the project, at most", since="projects_networks"),
    Key("limits.processes", UINT32, "", "Sum of the instances' `limits.processes`, at most", since="projects_limits"),
    Key("limits.virtual-machines", UINT32, "", "Virtual machines in the project, at most", since="projects_limits"),
)  # fmt: skip


def _blocked(name: str, doc: str, *, since: str = "projects_restrictions") -> Key:
    return Key(name, _ALLOW, "block", doc, since=since)


_RESTRICTIONS = (
    Key("restricted", BOOL, "false", "Whether the `restricted.*` keys take effect", since="projects_restrictions"),
    _blocked("restricted.backups", "Creation of instance and volume backups",
             since="projects_restricted_backups_and_snapshots"),
    Key("restricted.cluster.groups", netvalues.NAMES, "", "Cluster groups that may be targeted",
        since="clustering_groups"),
    _blocked("restricted.cluster.target", "Choosing the cluster member of an instance",
             since="projects_restricted_cluster_target"),
    _blocked("restricted.containers.interception",
             "System call interception that is usually safe; mount interception needs `lowlevel` as well",
             since="projects_restricted_intercept"),
    _blocked("restricted.containers.lowlevel", "Low-level container keys: `raw.lxc`, `raw.idmap`, `volatile.*`, …"),
    _blocked("restricted.containers.nesting", "`security.nesting=true`"),
    Key("restricted.containers.privilege", one_of("allow", "isolated", "unprivileged"), "unprivileged",
        "`unprivileged` refuses `security.privileged=true`; `isolated` also asks for `security.idmap.isolated=true`",
        since="projects_restrictions"),
    Key("restricted.devices.disk", _ALLOW_OR_MANAGED, "managed",
        "Disk devices: `block` leaves the root disk alone, `managed` asks for `pool`", since="projects_restrictions"),
    Key("restricted.devices.disk.paths", list_of(hostvalues.ABSOLUTE_PATH), "",
        "Path prefixes that the `source` of a disk must have, where `restricted.devices.disk` is `allow`",
        since="projects_restrictions", shown_default="all paths"),
    _blocked("restricted.devices.gpu", "Devices of type `gpu`"),
    _blocked("restricted.devices.infiniband", "Devices of type `infiniband`"),
    Key("restricted.devices.nic", _ALLOW_OR_MANAGED, "managed",
        "Network devices: `managed` asks for `network`. Rules over access to networks too",
        since="projects_restrictions"),
    _blocked("restricted.devices.pci", "Devices of type `pci`"),
    _blocked("restricted.devices.proxy", "Devices of type `proxy`"),
    _blocked("restricted.devices.unix-block", "Devices of type `unix-block`"),
    _blocked("restricted.devices.unix-char", "Devices of type `unix-char`"),
    _blocked("restricted.devices.unix-hotplug", "Devices of type `unix-hotplug`"),
    _blocked("restricted.devices.usb", "Devices of type `usb`"),
    Key("restricted.idmap.gid", hostvalues.ID_RANGES, "", "Host GIDs that `raw.idmap` may name"),
    Key("restricted.idmap.uid", hostvalues.ID_RANGES, "", "Host UIDs that `raw.idmap` may name"),
    Key("restricted.networks.access", netvalues.NAMES, "", "Networks that may be used",
        since="projects_networks_restricted_access", shown_default="all networks"),
    Key("restricted.networks.subnets", or_word(_UPLINK_SUBNETS, "block"), "block",
        "Subnets of the uplinks that belong to this project, as `<uplink>:<subnet>`",
        since="network_ovn_external_subnets"),
    Key("restricted.networks.uplinks", or_word(netvalues.NAMES, "block"), "block",
        "Networks that may be the uplink of this project's networks", since="projects_networks_restricted_uplinks"),
    Key("restricted.networks.zones", or_word(list_of(netvalues.DOMAIN), "block"), "block",
        "DNS zones, and what is under them, that may be used", since="network_dns"),
    _blocked("restricted.snapshots", "Creation of instance and volume snapshots",
             since="projects_restricted_backups_and_snapshots"),
    _blocked("restricted.virtual-machines.lowlevel", "Low-level keys of virtual machines: `raw.qemu`, `volatile.*`, …"),
)  # fmt: skip

PROJECT = KeyTable(
    "project",
    (*_FEATURES, *_SERVER_OVERRIDES, *_LIMITS, *_RESTRICTIONS, USER),
    unknown="Invalid project configuration key: {key}",
    invalid='Invalid project configuration key "{key}" value: {why}',
)
