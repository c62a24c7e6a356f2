"""The keys of the server's own config, and of its cluster members."""

from __future__ import annotations

from collections.abc import Mapping

from atoll.config import hostvalues, netvalues, timevalues
from atoll.config.table import Guard, Key, KeyTable, Scope
from atoll.config.values import BLOB, BOOL, NATURAL, TEXT, integer, list_of, matching, one_of, parse_integer
from atoll.domain.errors import BadRequest

ARCHITECTURES = (
    "i686", "x86_64", "armv7l", "aarch64", "ppc", "ppc64", "ppc64le", "s390x", "mips", "mips64", "riscv32", "riscv64",
)  # fmt: skip
USER = Key("user.*", BLOB, "", "Free-form key/value storage; can be used in searches", live=True, guard=Guard.OPEN)

_ARCHITECTURE = one_of(*ARCHITECTURES)
_HEADER = matching("HTTP header value", r"[\x20-\x7e]+")
_LOCAL = Scope.LOCAL


def _check_odd(text: str) -> None:
    if parse_integer(text) % 2 == 0:
        raise ValueError("Value must be an odd number")


def _check_replicas(text: str) -> None:
    if parse_integer(text) == 0:
        raise ValueError("Value must be -1 (all members) or at least 1")


def _refuse_two_authorities(config: Mapping[str, str]) -> None:
    if config.get("candid.api.url") and config.get("rbac.api.url"):
        raise BadRequest("candid.api.url and rbac.api.url are mutually exclusive")


_CORE = (
    Key("core.bgp_address", netvalues.LISTEN, "", "Address to bind the BGP server to", scope=_LOCAL,
        since="network_bgp"),
    Key("core.bgp_asn", netvalues.ASN, "", "BGP autonomous system number of the server", since="network_bgp"),
    Key("core.bgp_routerid", netvalues.IPV4, "", "Identifier of this BGP server, an IPv4 address", scope=_LOCAL,
        since="network_bgp"),
    Key("core.debug_address", netvalues.LISTEN, "", "Address to bind the debug server to (HTTP)", scope=_LOCAL,
        since="pprof_http"),
    Key("core.dns_address", netvalues.LISTEN, "", "Address to bind the authoritative DNS server to", scope=_LOCAL,
        since="network_dns"),
    Key("core.https_address", netvalues.LISTEN, "", "Address to bind the remote API to (HTTPS)", scope=_LOCAL),
    Key("core.https_allowed_credentials", BOOL, "",
        "Whether to set the `Access-Control-Allow-Credentials` header to `true`", since="https_allowed_credentials"),
    Key("core.https_allowed_headers", _HEADER, "", "`Access-Control-Allow-Headers` header value"),
    Key("core.https_allowed_methods", _HEADER, "", "`Access-Control-Allow-Methods` header value"),
    Key("core.https_allowed_origin", _HEADER, "", "`Access-Control-Allow-Origin` header value"),
    Key("core.https_trusted_proxy", list_of(netvalues.IP), "",
        "Addresses of trusted servers that give the client's address in the PROXY header",
        since="server_trusted_proxy"),
    Key("core.metrics_address", netvalues.LISTEN, "", "Address to bind the metrics server to (HTTPS)", since="metrics"),
    Key("core.metrics_authentication", BOOL, "true", "Whether the metrics endpoint asks for a trusted certificate",
        since="metrics_authentication"),
    Key("core.proxy_http", TEXT, "", "HTTP proxy to use", shown_default="`HTTP_PROXY` of the environment"),
    Key("core.proxy_https", TEXT, "", "HTTPS proxy to use", shown_default="`HTTPS_PROXY` of the environment"),
    Key("core.proxy_ignore_hosts", TEXT, "", "Hosts that need no proxy, separated by commas",
        shown_default="`NO_PROXY` of the environment"),
    Key("core.remote_token_expiry", timevalues.EXPIRY, "", "How long a token that adds a client is valid",
        since="remote_token_expiry", shown_default="no expiry"),
    Key("core.shutdown_timeout", NATURAL, "5", "Minutes to wait for running operations before the server stops"),
    Key("core.trust_ca_certificates", BOOL, "", "Whether to trust client certificates signed by the CA",
        since="trust_ca_certificates"),
    Key("core.trust_password", TEXT, "", "Password by which clients add themselves; stored hashed, shown as `true`",
        secret=True),
)  # fmt: skip

_AUTHORITIES = (
    Key("candid.api.key", TEXT, "", "Public key of the Candid server (for servers without HTTPS)",
        since="candid_config_key"),
    Key("candid.api.url", netvalues.URL, "", "URL of the Candid authentication endpoint", since="candid_authentication"),
    Key("candid.domains", list_of(netvalues.NAME), "", "Allowed Candid domains", since="candid_config",
        shown_default="all domains"),
    Key("candid.expiry", NATURAL, "3600", "Expiry of Candid macaroons in seconds", since="candid_config"),
    Key("rbac.agent.private_key", TEXT, "", "Private key of the agent, from the RBAC registration", since="rbac"),
    Key("rbac.agent.public_key", TEXT, "", "Public key of the agent, from the RBAC registration", since="rbac"),
    Key("rbac.agent.url", netvalues.URL, "", "URL of the agent, from the RBAC registration", since="rbac"),
    Key("rbac.agent.username", TEXT, "", "User name of the agent, from the RBAC registration", since="rbac"),
    Key("rbac.api.expiry", NATURAL, "", "Expiry of RBAC macaroons in seconds", since="rbac"),
    Key("rbac.api.key", TEXT, "", "Public key of the RBAC server (for servers without HTTPS)", since="rbac"),
    Key("rbac.api.url", netvalues.URL, "", "URL of the RBAC server", since="rbac"),
)  # fmt: skip

_CLUSTER = (
    Key("cluster.https_address", netvalues.LISTEN_NO_WILDCARD, "", "Address for the traffic between cluster members",
        scope=_LOCAL, since="clustering_server_address"),
    Key("cluster.images_minimal_replica", integer(-1), "3",
        "Cluster members that keep a copy of an image: 1 for no replication, -1 for all members",
        since="clustering_image_replication", check=_check_replicas),
    Key("cluster.join_token_expiry", timevalues.EXPIRY, "3H", "How long a cluster join token is valid",
        since="cluster_join_token_expiry"),
    Key("cluster.max_standby", integer(0, 5), "2", "Members with the database stand-by role, at most",
        since="clustering_sizing"),
    Key("cluster.max_voters", integer(3), "3", "Members with the database voter role, at most; an odd number",
        since="clustering_sizing", check=_check_odd),
    Key("cluster.offline_threshold", integer(11), "20", "Seconds after which a silent member counts as offline",
        since="clustering"),
)  # fmt: skip

_IMAGES = (
    Key("images.auto_update_cached", BOOL, "true", "Whether to update the images the server caches"),
    Key("images.auto_update_interval", NATURAL, "6", "Hours between looks for updates of cached images; 0 turns it off"),
    Key("images.compression_algorithm", hostvalues.COMPRESSION, "gzip", "Compression of new images"),
    Key("images.default_architecture", _ARCHITECTURE, "", "Architecture to prefer in a cluster of several",
        since="images_default_architecture"),
    Key("images.remote_cache_expiry", NATURAL, "10", "Days after which an unused cached image is removed"),
)  # fmt: skip

_MISCELLANEOUS = (
    Key("backups.compression_algorithm", hostvalues.COMPRESSION, "gzip", "Compression of new backups",
        since="backup_compression"),
    Key("maas.api.key", TEXT, "", "API key to manage MAAS", since="maas_network"),
    Key("maas.api.url", netvalues.URL, "", "URL of the MAAS server", since="maas_network"),
    Key("maas.machine", netvalues.NAME, "", "Name of this host in MAAS", scope=_LOCAL, since="maas_network",
        shown_default="host name"),
    Key("network.ovn.integration_bridge", netvalues.INTERFACE, "br-int", "Open vSwitch bridge for OVN networks",
        since="network_type_ovn"),
    Key("network.ovn.northbound_connection",
        list_of(matching("database connection", r"(unix:/\S+|(tcp|ssl):\S+:[0-9]{1,5})")),
        "unix:/var/run/ovn/ovnnb_db.sock", "Connection to the OVN northbound database", since="network_type_ovn"),
    Key("storage.backups_volume", hostvalues.VOLUME_REFERENCE, "", "Volume that keeps the backups, as `POOL/VOLUME`",
        scope=_LOCAL, since="daemon_storage"),
    Key("storage.images_volume", hostvalues.VOLUME_REFERENCE, "", "Volume that keeps the images, as `POOL/VOLUME`",
        scope=_LOCAL, since="daemon_storage"),
    USER,
)  # fmt: skip

SERVER = KeyTable(
    "server",
    (*_CORE, *_AUTHORITIES, *_CLUSTER, *_IMAGES, *_MISCELLANEOUS),
    unknown="cannot set '{key}' to '{value}': unknown key",
    invalid="cannot set '{key}' to '{value}': {why}",
    rules=(_refuse_two_authorities,),
)

CLUSTER_MEMBER = KeyTable(
    "cluster member",
    (
        Key("scheduler.instance", one_of("all", "group", "manual"), "all",
            "How the member is chosen for new instances: always, through its group, or only by name",
            live=True, since="clustering_groups"),
        USER,
    ),
)  # fmt: skip
