"""Devices of the USB buses, without the buses' own hubs."""

from __future__ import annotations

from typing import Any

from atoll.host.resources import devices
from atoll.host.resources.sysfs import Tree, without_empty

_USB = "sys/bus/usb/devices"
_ROOT_HUB_VENDOR = "1d6b"
_CLASSES = {
    0x01: "Audio",
    0x02: "Communications",
    0x03: "Human Interface Device",
    0x05: "Physical Interface Device",
    0x06: "Imaging",
    0x07: "Printer",
    0x08: "Mass Storage",
    0x09: "Hub",
    0x0A: "CDC Data",
    0x0B: "Chip/SmartCard",
    0x0D: "Content Security",
    0x0E: "Video",
    0x0F: "Personal Healthcare",
    0x10: "Audio/Video",
    0xDC: "Diagnostic",
    0xE0: "Wireless",
    0xEF: "Miscellaneous Device",
    0xFE: "Application Specific Interface",
    0xFF: "Vendor Specific Class",
}
_BOOT = "Boot Interface Subclass"
_SUBCLASSES = {(0x03, 0x01): _BOOT, (0x08, 0x06): "SCSI", (0x01, 0x01): "Control Device", (0x01, 0x02): "Streaming"}


def read(tree: Tree) -> dict[str, Any]:
    """All of them."""
    names = [name for name in tree.names(_USB) if ":" not in name and tree.exists(f"{_USB}/{name}/idVendor")]
    shown = [name for name in names if tree.text(f"{_USB}/{name}/idVendor") != _ROOT_HUB_VENDOR]
    return {"devices": [_device(tree, name) for name in shown], "total": len(shown)}


def _device(tree: Tree, name: str) -> dict[str, Any]:
    device = f"{_USB}/{name}"
    try:
        speed = float(tree.text(f"{device}/speed"))
    except ValueError:
        speed = 0.0
    return {
        "bus_address": tree.number(f"{device}/busnum"),
        "device_address": tree.number(f"{device}/devnum"),
        "interfaces": [_interface(tree, f"{_USB}/{each}") for each in tree.names(_USB) if each.startswith(f"{name}:")],
        "vendor": tree.text(f"{device}/manufacturer"),
        "vendor_id": tree.text(f"{device}/idVendor"),
        "product": tree.text(f"{device}/product"),
        "product_id": tree.text(f"{device}/idProduct"),
        "speed": int(speed) if speed.is_integer() else speed,
    }


def _interface(tree: Tree, interface: str) -> dict[str, Any]:
    class_id, subclass_id, number = (
        tree.number(f"{interface}/{file}", base=16) for file in ("bInterfaceClass", "bInterfaceSubClass", "bInterfaceNumber")
    )
    driver, version = devices.driver(tree, interface)
    fields = {
        "class": _CLASSES.get(class_id, ""),
        "class_id": class_id,
        "driver": driver,
        "driver_version": version,
        "number": number,
        "subclass": _SUBCLASSES.get((class_id, subclass_id), ""),
        "subclass_id": subclass_id,
    }
    return without_empty(fields, ("driver", "driver_version"))
