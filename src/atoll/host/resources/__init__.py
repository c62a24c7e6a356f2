"""The host's hardware, read from /proc and /sys, in the shape of GET /1.0/resources.

Each module reads one part from a `Tree`, so that tests can give it a folder. Where LXD leaves a field out when it is empty
(`omitempty`), so does Atoll; lists and numbers that LXD always sends are always there. Sizes are bytes, frequencies MHz.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from atoll.host.resources import cpu, gpu, memory, network, pci, storage, system, usb
from atoll.host.resources.sysfs import Tree


def read(root: Path = Path("/")) -> dict[str, Any]:
    """Everything. Blocks for some milliseconds. What cannot be read is left empty: this never fails for odd hardware."""
    tree = Tree(root)
    return {
        "cpu": cpu.read(tree),
        "memory": memory.read(tree),
        "gpu": gpu.read(tree),
        "network": network.read(tree),
        "storage": storage.read(tree),
        "usb": usb.read(tree),
        "pci": pci.read(tree),
        "system": system.read(tree),
    }
