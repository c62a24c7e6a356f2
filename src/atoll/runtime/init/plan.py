"""Parts of a preseed that both the questions and `init --auto` put together."""

from __future__ import annotations

from typing import Any

from atoll.runtime.init.preseed import Preseed

BRIDGE_NAME = "atollbr0"
DEFAULT_PORT = 8443

FOLDER_DRIVERS = frozenset(("dir", "overlay"))
"""Drivers whose pool is a folder: there is no device, loop file or existing pool to ask for."""


def add_pool(preseed: Preseed, name: str, driver: str, config: dict[str, str]) -> None:
    """A new pool, and the default profile's root disk on it."""
    preseed["storage_pools"].append({"config": config, "description": "", "name": name, "driver": driver})
    default_profile(preseed)["devices"]["root"] = {"path": "/", "pool": name, "type": "disk"}


def add_network(preseed: Preseed, name: str, config: dict[str, str]) -> None:
    """A new bridge, and the default profile's network interface on it."""
    preseed["networks"].append({"config": config, "description": "", "name": name, "type": "", "project": "default"})
    add_nic(preseed, {"network": name})


def add_nic(preseed: Preseed, device: dict[str, str]) -> None:
    """The default profile's network interface."""
    default_profile(preseed)["devices"]["eth0"] = {"name": "eth0", "type": "nic", **device}


def default_profile(preseed: Preseed) -> dict[str, Any]:
    """The default profile's entry, made when it is first needed."""
    if not preseed["profiles"]:
        preseed["profiles"].append({"config": {}, "description": "", "devices": {}, "name": "default"})
    entry: dict[str, Any] = preseed["profiles"][0]
    return entry


def listen(preseed: Preseed, address: str, port: int) -> None:
    """Serve the API on the network too."""
    host = f"[{address}]" if ":" in address else address
    preseed["config"]["core.https_address"] = f"{host}:{port}"
