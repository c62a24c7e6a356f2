"""What cloud-init is told of an instance. It does its work anew when the instance id is another. Pure."""

from __future__ import annotations

import uuid

from atoll.domain.entities import Config
from atoll.services.instances.expand import Expanded

INSTANCE_ID = "volatile.cloud-init.instance-id"

_SEEDS = (
    "cloud-init.network-config",
    "cloud-init.user-data",
    "cloud-init.vendor-data",
    "user.meta-data",
    "user.network-config",
    "user.user-data",
    "user.vendor-data",
)


def new_id() -> dict[str, str]:
    """For an instance that is another one to cloud-init: a copy, or one that was renamed."""
    return {INSTANCE_ID: str(uuid.uuid4())}


def id_after(own: Config, old: Expanded, new: Expanded) -> dict[str, str]:
    """The id, as a volatile key, of an instance of that own configuration that goes from one form to another: a new one if
    what cloud-init was told would be something else, or the instance's interfaces have other names."""
    kept = own.get(INSTANCE_ID, "")
    return {INSTANCE_ID: kept} if kept and _told(old) == _told(new) else new_id()


def _told(expanded: Expanded) -> tuple[list[str], list[str]]:
    config = expanded.config
    nics = [(name, device) for name, device in expanded.devices.items() if device.get("type") == "nic"]
    names = sorted(device.get("name") or config.get(f"volatile.{name}.name", "") for name, device in nics)
    return [config.get(key, "") for key in _SEEDS], names


def meta_data(name: str, config: Config) -> str:
    """cloud-init's meta-data of an instance by its expanded configuration, `user.meta-data` behind what is generated."""
    head = f"#cloud-config\ninstance-id: {config.get(INSTANCE_ID, '')}\nlocal-hostname: {name}\n"
    return head + config.get("user.meta-data", "")


def seed(name: str, config: Config) -> dict[str, str]:
    """The files of cloud-init's NoCloud source for an instance by its expanded configuration: name -> text."""
    files = {
        "meta-data": meta_data(name, config),
        "user-data": config.get("cloud-init.user-data") or config.get("user.user-data") or "#cloud-config\n{}\n",
        "vendor-data": config.get("cloud-init.vendor-data") or config.get("user.vendor-data") or "#cloud-config\n{}\n",
        "network-config": config.get("cloud-init.network-config") or config.get("user.network-config", ""),
    }
    return {file: text for file, text in files.items() if text}
