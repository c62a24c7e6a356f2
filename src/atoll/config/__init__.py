"""The only place where a config key is declared: one row says its parser, default, scope, liveness, origin and meaning.

Tables: SERVER, CLUSTER_MEMBER, PROJECT, INSTANCE, the NETWORK_* ones, and by kind `instance_table`, `pool_table`,
`volume_table`, `network_table`, `device_table`. `catalog` has them all, for metadata and completion; `docs` writes the
reference.
"""

from __future__ import annotations

from atoll.config.devices import device_table, validate_device
from atoll.config.instance import INSTANCE, instance_table
from atoll.config.network import (
    NETWORK_ACL,
    NETWORK_FORWARD,
    NETWORK_PEER,
    NETWORK_ZONE,
    NETWORK_ZONE_RECORD,
    network_table,
)
from atoll.config.project import PROJECT
from atoll.config.server import CLUSTER_MEMBER, SERVER
from atoll.config.storage import pool_table, volume_table
from atoll.config.table import Guard, Key, KeyTable, Scope
from atoll.config.values import ValueType

__all__ = [
    "CLUSTER_MEMBER",
    "INSTANCE",
    "NETWORK_ACL",
    "NETWORK_FORWARD",
    "NETWORK_PEER",
    "NETWORK_ZONE",
    "NETWORK_ZONE_RECORD",
    "PROJECT",
    "SERVER",
    "Guard",
    "Key",
    "KeyTable",
    "Scope",
    "ValueType",
    "device_table",
    "instance_table",
    "network_table",
    "pool_table",
    "validate_device",
    "volume_table",
]
