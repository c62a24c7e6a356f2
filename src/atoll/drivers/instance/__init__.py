"""Instance drivers: what runs a machine. The API, the database and the services know only `contract`."""

from atoll.drivers.instance.contract import InstanceDriver
from atoll.drivers.registry import Registry

REGISTRY: Registry[InstanceDriver] = Registry(
    "instance",
    {"lxc": "atoll.drivers.instance.lxc.driver:LxcDriver", "sim": "atoll.drivers.instance.sim:SimDriver"},
    group="atoll.instance_drivers",
)
