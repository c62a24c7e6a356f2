"""Devices of the PCI bus, and what other parts show of the one that they are."""

from __future__ import annotations

from typing import Any

from atoll.host.resources import devices, pci_names
from atoll.host.resources.devices import PCI
from atoll.host.resources.sysfs import Tree, without_empty


def read(tree: Tree) -> dict[str, Any]:
    """All of them, in the order of their addresses."""
    addresses = tree.names(PCI)
    names = pci_names.find(tree, {devices.pci_ids(tree, address) for address in addresses})
    found = [_device(tree, address, names[devices.pci_ids(tree, address)]) for address in addresses]
    return {"devices": found, "total": len(found)}


def _device(tree: Tree, address: str, names: tuple[str, str]) -> dict[str, Any]:
    device = f"{PCI}/{address}"
    driver, version = devices.driver(tree, device)
    vendor_id, product_id = devices.pci_ids(tree, address)
    group = tree.link(f"{device}/iommu_group")
    return {
        "driver": driver,
        "driver_version": version,
        "numa_node": tree.number(f"{device}/numa_node"),
        "pci_address": address,
        "vendor": names[0],
        "vendor_id": vendor_id,
        "product": names[1],
        "product_id": product_id,
        "iommu_group": int(group) if group.isdigit() else 0,
        "vpd": {},
    }


def identity(tree: Tree, address: str) -> dict[str, str]:
    """The fields of a graphics or network card that tell which PCI device it is."""
    ids = devices.pci_ids(tree, address)
    vendor, product = pci_names.find(tree, [ids])[ids]
    driver, version = devices.driver(tree, f"{PCI}/{address}")
    fields = {
        "driver": driver,
        "driver_version": version,
        "pci_address": address,
        "vendor": vendor,
        "vendor_id": ids[0],
        "product": product,
        "product_id": ids[1],
    }
    return without_empty(fields, fields)
