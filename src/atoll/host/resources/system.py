"""The machine as its maker describes it (DMI), and whether it is one at all."""

from __future__ import annotations

from typing import Any

from atoll.host.resources.sysfs import Tree

_DMI = "sys/class/dmi/id"
_CONTAINER_MARKS = ("run/systemd/container", ".dockerenv", "run/.containerenv")
_FIELDS = {
    "uuid": "product_uuid",
    "vendor": "sys_vendor",
    "product": "product_name",
    "family": "product_family",
    "version": "product_version",
    "sku": "product_sku",
    "serial": "product_serial",
}
_CHASSIS = (
    "Other", "Unknown", "Desktop", "Low Profile Desktop", "Pizza Box", "Mini Tower", "Tower", "Portable", "Laptop", "Notebook",
    "Hand Held", "Docking Station", "All in One", "Sub Notebook", "Space-saving", "Lunch Box", "Main Server Chassis",
    "Expansion Chassis", "SubChassis", "Bus Expansion Chassis", "Peripheral Chassis", "RAID Chassis", "Rack Mount Chassis",
    "Sealed-case PC", "Multi-system chassis", "Compact PCI", "Advanced TCA", "Blade", "Blade Enclosure", "Tablet",
    "Convertible", "Detachable", "IoT Gateway", "Embedded PC", "Mini PC", "Stick PC",
)  # fmt: skip
"""Names of SMBIOS's chassis types, from 1."""


def read(tree: Tree) -> dict[str, Any]:
    """Firmware, chassis and motherboard are null where there is no DMI."""
    told = tree.exists(_DMI)
    return {
        **{field: tree.text(f"{_DMI}/{file}") for field, file in _FIELDS.items()},
        "type": _kind(tree),
        "firmware": _firmware(tree) if told else None,
        "chassis": _chassis(tree) if told else None,
        "motherboard": _motherboard(tree) if told else None,
    }


def _kind(tree: Tree) -> str:
    if any(tree.exists(mark) for mark in _CONTAINER_MARKS):
        return "container"
    flags = next((line for line in tree.text("proc/cpuinfo").splitlines() if line.startswith("flags")), "")
    return "virtual-machine" if "hypervisor" in flags.split() else "physical"


def _firmware(tree: Tree) -> dict[str, str]:
    return {field: tree.text(f"{_DMI}/bios_{field}") for field in ("vendor", "date", "version")}


def _chassis(tree: Tree) -> dict[str, str]:
    number = tree.number(f"{_DMI}/chassis_type")
    return {
        "vendor": tree.text(f"{_DMI}/chassis_vendor"),
        "type": _CHASSIS[number - 1] if 1 <= number <= len(_CHASSIS) else "Unknown",
        "serial": tree.text(f"{_DMI}/chassis_serial"),
        "version": tree.text(f"{_DMI}/chassis_version"),
    }


def _motherboard(tree: Tree) -> dict[str, str]:
    return {
        "vendor": tree.text(f"{_DMI}/board_vendor"),
        "product": tree.text(f"{_DMI}/board_name"),
        "serial": tree.text(f"{_DMI}/board_serial"),
        "version": tree.text(f"{_DMI}/board_version"),
    }
