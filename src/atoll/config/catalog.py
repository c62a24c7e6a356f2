"""All tables under the names of their entities, and what is generated from them: metadata and shell completion."""

from __future__ import annotations

import functools

from atoll.config import devices, network, storage
from atoll.config.instance import INSTANCE
from atoll.config.project import PROJECT
from atoll.config.server import CLUSTER_MEMBER, SERVER
from atoll.config.table import Key, KeyTable

Groups = dict[str, tuple[Key, ...]]


@functools.cache
def entities() -> dict[str, Groups]:
    """Every entity's rows in groups, in the order of documentation: {"server": {"core": (…), …}, "network-bridge": …}."""
    found: dict[str, Groups] = {
        "server": by_namespace(SERVER),
        "cluster": by_namespace(CLUSTER_MEMBER),
        "project": by_namespace(PROJECT),
        "instance": by_namespace(INSTANCE),
    }
    for driver in storage.DRIVERS:
        found[f"storage-{driver}"] = {
            "pool-conf": storage.pool_table(driver).rows(),
            "volume-conf": _volume_rows(driver),
        }
    for network_type in network.NETWORK_TYPES:
        found[f"network-{network_type}"] = {"network-conf": network.network_table(network_type).rows()}
    for name, table in (
        ("network-acl", network.NETWORK_ACL),
        ("network-forward", network.NETWORK_FORWARD),
        ("network-peer", network.NETWORK_PEER),
        ("network-zone", network.NETWORK_ZONE),
        ("network-zone-record", network.NETWORK_ZONE_RECORD),
    ):
        found[name] = {"config-options": table.rows()}
    for name, table in device_tables().items():
        found[f"device-{name}"] = {"device-conf": table.rows()}
    return found


def _volume_rows(driver: str) -> tuple[Key, ...]:
    """Those of volumes of files, and then those that only disks have."""
    rows = {key.name: key for content_type in storage.CONTENT_TYPES for key in storage.volume_table(driver, content_type).rows()}
    return tuple(rows.values())


@functools.cache
def device_tables() -> dict[str, KeyTable]:
    """The table of each kind of device: `disk`, `nic-bridged`, `gpu-mdev`, …"""
    tables: dict[str, KeyTable] = {}
    for device_type in devices.TYPES:
        kinds = {"nic": devices.NICTYPES, "gpu": devices.GPUTYPES}.get(device_type, ("",))
        for kind in kinds:
            tables[f"{device_type}-{kind}".rstrip("-")] = devices.device_table(device_type, kind)
    return tables


def by_namespace(table: KeyTable) -> Groups:
    """Rows by the first segment of their names; a name without one is a group of its own."""
    groups: dict[str, list[Key]] = {}
    for key in table.rows():
        groups.setdefault(key.name.partition(".")[0], []).append(key)
    return {name: tuple(keys) for name, keys in groups.items()}


def metadata() -> dict[str, object]:
    """The body of `GET /1.0/metadata/configuration`: {"configs": {entity: {group: {"keys": [{name: {…}}]}}}}."""
    return {
        "configs": {
            entity: {group: {"keys": [{key.name: _describe(key)} for key in keys]} for group, keys in groups.items()}
            for entity, groups in entities().items()
        }
    }


def _describe(key: Key) -> dict[str, str]:
    described = {
        "type": key.type.name,
        "shortdesc": key.doc,
        "longdesc": "",
        "defaultdesc": default_of(key),
        "scope": key.scope.value,
        "liveupdate": "yes" if key.live else "no",
        "condition": key.condition,
        "extension": "" if key.since == "1.0" else key.since,
    }
    return {name: text for name, text in described.items() if text or name == "longdesc"}


def default_of(key: Key) -> str:
    """The default as it is shown: prose as it stands, a value in code quotes, "" for none."""
    return key.shown_default or (f"`{key.default}`" if key.default else "")
