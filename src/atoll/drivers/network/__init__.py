"""Network drivers: managed networks. The services know only `contract`."""

from atoll.drivers.network.contract import NetworkDriver
from atoll.drivers.registry import Registry

REGISTRY: Registry[NetworkDriver] = Registry(
    "network",
    {"bridge": "atoll.drivers.network.bridge.driver:BridgeDriver", "sim": "atoll.drivers.network.sim:SimNetwork"},
    group="atoll.network_drivers",
)
