"""Device drivers: what a device of an instance needs on the host, and what it adds to a machine's launch."""

from atoll.drivers.device.contract import DeviceDriver
from atoll.drivers.registry import Registry

REGISTRY: Registry[DeviceDriver] = Registry(
    "device",
    {
        "none": "atoll.drivers.device.none:NoneDevice",
        "disk": "atoll.drivers.device.disk:DiskDevice",
        "nic:bridged": "atoll.drivers.device.nic_bridged:BridgedNic",
        "nic:p2p": "atoll.drivers.device.nic_p2p:P2pNic",
    },
    group="atoll.device_drivers",
)
