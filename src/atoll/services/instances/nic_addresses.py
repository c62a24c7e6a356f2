"""The MAC addresses of an instance's NICs. It has one from the moment on that it has the NIC, and keeps it: others can be told of
it before the first start."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from atoll.services.instances.expand import Expanded

Device = Mapping[str, str]
Choose = Callable[[], str]
"""A new address, see `NetworkService.new_hwaddr`."""


def initial(expanded: Expanded, choose: Choose) -> dict[str, str]:
    """Volatile keys with an address for each NIC that has none, by its own configuration or by the instance's."""
    wanted = (name for name, device in expanded.devices.items() if device.get("type") == "nic" and not device.get("hwaddr"))
    found = (_key(name) for name in wanted)
    return {key: choose() for key in found if not expanded.config.get(key)}


def after(old: Mapping[str, Device], expanded: Expanded, choose: Choose) -> dict[str, str]:
    """Volatile changes when an instance gets other devices: as `initial`, and none are kept for NICs that go, or get one by their
    configuration."""
    kept = {name for name, device in expanded.devices.items() if device.get("type") == "nic" and not device.get("hwaddr")}
    gone = (_key(name) for name, device in old.items() if device.get("type") == "nic" and name not in kept)
    return {**initial(expanded, choose), **{key: "" for key in gone if key in expanded.config}}


def _key(name: str) -> str:
    return f"volatile.{name}.hwaddr"
