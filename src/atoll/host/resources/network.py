"""Network cards with their ports. Interfaces that no hardware stands behind (bridges, veth) are none."""

from __future__ import annotations

from typing import Any

from atoll.host.resources import devices, pci
from atoll.host.resources.devices import PCI
from atoll.host.resources.sysfs import Tree, without_empty

_NET = "sys/class/net"
_PCI_CLASS = "02"
_PROTOCOLS = {1: "ethernet", 19: "ATM", 32: "infiniband"}
_INFINIBAND = {"issm": "issm", "mad": "umad", "verb": "uverbs"}
_UNKNOWN_SPEED = 0xFFFF_FFFF


def read(tree: Tree) -> dict[str, Any]:
    """Cards on the PCI bus, then the others; `total` counts virtual functions too."""
    ports = _ports_by_device(tree)
    addresses = [address for address in tree.names(PCI) if devices.pci_class(tree, address) == _PCI_CLASS]
    own = [address for address in addresses if not devices.is_virtual_function(tree, address)]
    cards = [_pci_card(tree, address, ports) for address in own]
    others = {device for device in ports if device not in addresses}
    cards += [_other_card(tree, device, ports[device]) for device in sorted(others)]
    return {"cards": cards, "total": len(addresses) + len(others)}


def _ports_by_device(tree: Tree) -> dict[str, list[str]]:
    """Interfaces by the address of their PCI network card, or by the path of another device."""
    found: dict[str, list[str]] = {}
    for name in tree.names(_NET):
        device = f"{_NET}/{name}/device"
        if tree.exists(device):
            address = devices.pci_address(tree, device)
            is_card = address and devices.pci_class(tree, address) == _PCI_CLASS
            found.setdefault(address if is_card else tree.real(device), []).append(name)
    return found


def _pci_card(tree: Tree, address: str, ports: dict[str, list[str]]) -> dict[str, Any]:
    fields = {
        **pci.identity(tree, address),
        "ports": [_port(tree, name) for name in ports.get(address, [])],
        "sriov": devices.sriov(tree, address, lambda function: _pci_card(tree, function, ports)),
        "numa_node": tree.number(f"{PCI}/{address}/numa_node"),
    }
    return without_empty(fields, ("ports", "sriov"))


def _other_card(tree: Tree, device: str, ports: list[str]) -> dict[str, Any]:
    driver, version = devices.driver(tree, device)
    fields = {
        "driver": driver,
        "driver_version": version,
        "ports": [_port(tree, name) for name in ports],
        "numa_node": devices.numa_node(tree, device),
        "usb_address": devices.usb_address(tree, device),
    }
    return without_empty(fields, ("driver", "driver_version", "usb_address"))


def _port(tree: Tree, name: str) -> dict[str, Any]:
    """What sysfs tells; the modes that a card could use are ethtool's and left out."""
    port = f"{_NET}/{name}"
    speed = tree.number(f"{port}/speed")
    duplex = tree.text(f"{port}/duplex")
    fields = {
        "id": name,
        "address": tree.text(f"{port}/address"),
        "port": tree.number(f"{port}/dev_port"),
        "protocol": _PROTOCOLS.get(tree.number(f"{port}/type"), "unknown"),
        "auto_negotiation": False,
        "link_detected": tree.number(f"{port}/carrier") == 1,
        "link_speed": 0 if speed == _UNKNOWN_SPEED else speed,
        "link_duplex": "" if duplex == "unknown" else duplex,
        "infiniband": _infiniband(tree, f"{port}/device"),
    }
    return without_empty(fields, ("address", "link_speed", "link_duplex", "infiniband"))


def _infiniband(tree: Tree, device: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for kind, prefix in _INFINIBAND.items():
        folder = f"{device}/infiniband_{'verbs' if kind == 'verb' else 'mad'}"
        for name in tree.names(folder):
            if name.startswith(prefix):
                fields[f"{kind}_name"] = name
                fields[f"{kind}_device"] = tree.text(f"{folder}/{name}/dev")
                break
    return fields
