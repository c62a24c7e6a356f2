"""What devices of all kinds have in common: their driver, their place on the PCI or USB bus, virtual functions."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable
from typing import Any

from atoll.host.resources.sysfs import Tree

PCI = "sys/bus/pci/devices"
_PCI_ADDRESS = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


def driver(tree: Tree, device: str) -> tuple[str, str]:
    """(name, version) of a device's driver; a driver that has no version of its own has the kernel's."""
    name = tree.link(f"{device}/driver")
    if not name:
        return "", ""
    module = tree.link(f"{device}/driver/module") or name
    return name, tree.text(f"sys/module/{module}/version") or platform.release()


def pci_address(tree: Tree, device: str) -> str:
    """The nearest PCI device that a device hangs on, as "0000:00:1f.2"; empty if there is none."""
    parts = reversed(tree.real(device).split("/"))
    return next((part for part in parts if _PCI_ADDRESS.fullmatch(part)), "")


def usb_address(tree: Tree, device: str) -> str:
    """The USB device that a device hangs on, as BUS:DEVICE; empty if there is none."""
    path = tree.real(device)
    while path and path != ".":
        if tree.exists(f"{path}/busnum") and tree.exists(f"{path}/devnum"):
            return f"{tree.number(f'{path}/busnum')}:{tree.number(f'{path}/devnum')}"
        path = os.path.dirname(path)
    return ""


def numa_node(tree: Tree, device: str) -> int:
    """The memory node that is nearest to a device; 0 where the kernel does not know."""
    address = pci_address(tree, device)
    return tree.number(f"{PCI}/{address}/numa_node") if address else tree.number(f"{device}/numa_node")


def pci_ids(tree: Tree, address: str) -> tuple[str, str]:
    """(vendor, product) ids of a PCI device in hex digits."""
    return _hex(tree.text(f"{PCI}/{address}/vendor")), _hex(tree.text(f"{PCI}/{address}/device"))


def pci_class(tree: Tree, address: str) -> str:
    """The two hex digits of its base class, such as "03" of displays."""
    return _hex(tree.text(f"{PCI}/{address}/class"))[:2]


def is_virtual_function(tree: Tree, address: str) -> bool:
    """Whether it is a part of another PCI device."""
    return tree.exists(f"{PCI}/{address}/physfn")


def sriov(tree: Tree, address: str, render: Callable[[str], dict[str, Any]]) -> dict[str, Any] | None:
    """A PCI device's virtual functions, each as `render` shows the one at an address; None if it can have none."""
    device = f"{PCI}/{address}"
    if not address or not tree.exists(f"{device}/sriov_totalvfs"):
        return None
    functions = [tree.link(f"{device}/{name}") for name in tree.names(device) if name.startswith("virtfn")]
    return {
        "current_vfs": tree.number(f"{device}/sriov_numvfs"),
        "maximum_vfs": tree.number(f"{device}/sriov_totalvfs"),
        "vfs": [render(function) for function in functions if function],
    }


def _hex(text: str) -> str:
    return text.removeprefix("0x").lower()
