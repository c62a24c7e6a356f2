"""Graphics cards: PCI displays, and others that have a DRM device."""

from __future__ import annotations

from typing import Any

from atoll.host.resources import devices, pci
from atoll.host.resources.devices import PCI
from atoll.host.resources.sysfs import Tree, without_empty

_DRM = "sys/class/drm"
_PCI_CLASS = "03"
_DRM_OPTIONAL = ("control_name", "control_device", "render_name", "render_device")


def read(tree: Tree) -> dict[str, Any]:
    """Cards on the PCI bus, then the others; `total` counts virtual functions too."""
    addresses = [address for address in tree.names(PCI) if _is_card(tree, address)]
    own = [address for address in addresses if not devices.is_virtual_function(tree, address)]
    others = {
        tree.real(device)
        for name in tree.names(_DRM)
        if name[:4] == "card" and name[4:].isdigit() and tree.exists(device := f"{_DRM}/{name}/device")
        if devices.pci_address(tree, device) not in addresses
    }
    cards = [_pci_card(tree, address) for address in own] + [_other_card(tree, device) for device in sorted(others)]
    return {"cards": cards, "total": len(addresses) + len(others)}


def _is_card(tree: Tree, address: str) -> bool:
    return devices.pci_class(tree, address) == _PCI_CLASS or tree.exists(f"{PCI}/{address}/drm")


def _pci_card(tree: Tree, address: str) -> dict[str, Any]:
    device = f"{PCI}/{address}"
    fields = {
        **pci.identity(tree, address),
        "drm": _drm(tree, f"{device}/drm"),
        "sriov": devices.sriov(tree, address, lambda function: _pci_card(tree, function)),
        "nvidia": _nvidia(tree, address),
        "mdev": _mediated(tree, f"{device}/mdev_supported_types"),
        "numa_node": tree.number(f"{device}/numa_node"),
    }
    return without_empty(fields, ("drm", "sriov", "nvidia", "mdev"))


def _other_card(tree: Tree, device: str) -> dict[str, Any]:
    driver, version = devices.driver(tree, device)
    fields = {
        "driver": driver,
        "driver_version": version,
        "drm": _drm(tree, f"{device}/drm"),
        "numa_node": devices.numa_node(tree, device),
        "usb_address": devices.usb_address(tree, device),
    }
    return without_empty(fields, ("driver", "driver_version", "drm", "usb_address"))


def _drm(tree: Tree, folder: str) -> dict[str, Any] | None:
    found: dict[str, Any] = {"id": 0, "card_name": "", "card_device": ""}
    found.update(dict.fromkeys(_DRM_OPTIONAL, ""))
    for name in tree.names(folder):
        kind = next((kind for kind in ("card", "control", "render") if name.startswith(kind)), "")
        if kind:
            found[f"{kind}_name"], found[f"{kind}_device"] = name, tree.text(f"{folder}/{name}/dev")
        if kind == "card" and name[4:].isdigit():
            found["id"] = int(name[4:])
    return without_empty(found, _DRM_OPTIONAL) if found["card_name"] or found["render_name"] else None


def _nvidia(tree: Tree, address: str) -> dict[str, str] | None:
    """What NVIDIA's own driver tells in /proc; its programs are not asked."""
    text = tree.text(f"proc/driver/nvidia/gpus/{address}/information")
    if not text:
        return None
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    minor = told.get("Device Minor", "0")
    fields = {
        "nvrm_version": tree.text("sys/module/nvidia/version"),
        "brand": told.get("Model", "").split(" ")[0],
        "model": told.get("Model", ""),
        "uuid": told.get("GPU UUID", ""),
        "card_name": f"nvidia{minor}",
        "card_device": f"195:{minor}",
    }
    return without_empty(fields, ("nvrm_version", "uuid"))


def _mediated(tree: Tree, folder: str) -> dict[str, Any]:
    return {
        kind: without_empty(
            {
                "api": tree.text(f"{folder}/{kind}/device_api"),
                "available": tree.number(f"{folder}/{kind}/available_instances"),
                "name": tree.text(f"{folder}/{kind}/name"),
                "description": tree.text(f"{folder}/{kind}/description"),
                "devices": tree.names(f"{folder}/{kind}/devices"),
            },
            ("name", "description"),
        )
        for kind in tree.names(folder)
    }
