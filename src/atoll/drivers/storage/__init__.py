"""Storage drivers: pools of volumes. The services know only `contract`."""

from atoll.drivers.registry import Registry
from atoll.drivers.storage.contract import StorageDriver

REGISTRY: Registry[StorageDriver] = Registry(
    "storage",
    {
        "overlay": "atoll.drivers.storage.overlay:OverlayDriver",
        "btrfs": "atoll.drivers.storage.btrfs:BtrfsDriver",
        "dir": "atoll.drivers.storage.dir:DirDriver",
        "sim": "atoll.drivers.storage.sim:SimStorage",
    },
    group="atoll.storage_drivers",
)
