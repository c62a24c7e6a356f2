"""Disks with their partitions. What is made of files or memory (loop, zram, device mapper) is no disk."""

from __future__ import annotations

import os
from typing import Any

from atoll.host.resources import devices
from atoll.host.resources.sysfs import Tree, without_empty

_BLOCK = "sys/class/block"
_SECTOR = 512
_OPTIONAL = ("model", "type", "wwn", "device_path", "firmware_version", "serial", "pci_address", "usb_address")


def read(tree: Tree) -> dict[str, Any]:
    """All of them; `total` counts partitions too."""
    by_id, by_path = _aliases(tree, "dev/disk/by-id"), _aliases(tree, "dev/disk/by-path")
    disks = [_disk(tree, name, by_id.get(name, ""), by_path.get(name, "")) for name in tree.names(_BLOCK) if _is_disk(tree, name)]
    return {"disks": disks, "total": sum(1 + len(disk["partitions"]) for disk in disks)}


def _is_disk(tree: Tree, name: str) -> bool:
    block = f"{_BLOCK}/{name}"
    return tree.exists(f"{block}/device") and not tree.exists(f"{block}/partition") and tree.text(f"{block}/hidden") != "1"


def _aliases(tree: Tree, folder: str) -> dict[str, str]:
    """The links of a folder by the device they lead to; of several the last, which are the longest-lived (`wwn-…`, `eui`)."""
    return {tree.link(f"{folder}/{name}"): name for name in sorted(tree.names(folder))}


def _disk(tree: Tree, name: str, device_id: str, device_path: str) -> dict[str, Any]:
    block = f"{_BLOCK}/{name}"
    device = f"{block}/device"
    known = _udev(tree, tree.text(f"{block}/dev"))
    fields = {
        "id": name,
        "device": tree.text(f"{block}/dev"),
        "model": tree.text(f"{device}/model"),
        "type": _kind(tree, name, device),
        "read_only": tree.number(f"{block}/ro") == 1,
        "size": tree.number(f"{block}/size") * _SECTOR,
        "removable": tree.number(f"{block}/removable") == 1,
        "wwn": tree.text(f"{block}/wwid") or tree.text(f"{device}/wwid"),
        "numa_node": devices.numa_node(tree, device),
        "device_path": device_path,
        "block_size": tree.number(f"{block}/queue/physical_block_size"),
        "firmware_version": tree.text(f"{device}/firmware_rev") or tree.text(f"{device}/rev"),
        "rpm": _rpm(tree, block, known),
        "serial": tree.text(f"{device}/serial") or known.get("ID_SERIAL_SHORT", ""),
        "device_id": device_id,
        "partitions": [_partition(tree, f"{block}/{each}", each) for each in _partitions(tree, block)],
        "pci_address": devices.pci_address(tree, device),
        "usb_address": devices.usb_address(tree, device),
    }
    return without_empty(fields, _OPTIONAL)


def _kind(tree: Tree, name: str, device: str) -> str:
    """By what it is attached; cdrom for what reads those."""
    if name.startswith("sr"):
        return "cdrom"
    if devices.usb_address(tree, device):
        return "usb"
    return os.path.basename(tree.link(f"{device}/subsystem"))


def _rpm(tree: Tree, block: str, known: dict[str, str]) -> int:
    """0 for what does not turn, 1 for what turns at an unknown rate."""
    rate = known.get("ID_ATA_ROTATION_RATE_RPM", "")
    return int(rate) if rate.isdigit() and int(rate) else tree.number(f"{block}/queue/rotational")


def _udev(tree: Tree, device: str) -> dict[str, str]:
    """What udev found out about a block device."""
    lines = tree.text(f"run/udev/data/b{device}").splitlines()
    pairs = (line[2:].partition("=") for line in lines if line.startswith("E:"))
    return {key: value for key, _, value in pairs}


def _partitions(tree: Tree, block: str) -> list[str]:
    return [name for name in tree.names(block) if tree.exists(f"{block}/{name}/partition")]


def _partition(tree: Tree, path: str, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "device": tree.text(f"{path}/dev"),
        "read_only": tree.number(f"{path}/ro") == 1,
        "size": tree.number(f"{path}/size") * _SECTOR,
        "partition": tree.number(f"{path}/partition"),
    }
