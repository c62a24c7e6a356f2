"""Names of PCI vendors and products, from the `pci.ids` file that distributions ship."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from atoll.host.resources.sysfs import Tree

FILES = ("usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids")

Ids = tuple[str, str]
"""(vendor id, product id)."""


def find(tree: Tree, wanted: Iterable[Ids]) -> Mapping[Ids, Ids]:
    """(vendor, product) names of each pair of ids; empty where they are not known.

    The file is large: it is gone through once for all that are wanted, and the few answers are kept while it stays as it is.
    """
    asked = frozenset(wanted)
    for name in FILES:
        file = tree.root / name
        try:
            return _scan(file, file.stat().st_mtime_ns, asked)
        except OSError:
            continue
    return dict.fromkeys(asked, ("", ""))


@lru_cache(maxsize=8)
def _scan(file: Path, _changed: int, asked: frozenset[Ids]) -> Mapping[Ids, Ids]:
    vendors = {vendor for vendor, _ in asked}
    vendor_names: dict[str, str] = {}
    product_names: dict[Ids, str] = {}
    vendor = ""
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("C "):  # device classes, after all vendors
                break
            if line[0] not in "\t#\n":
                vendor = line[:4] if line[:4] in vendors else ""
                if vendor:
                    vendor_names[vendor] = line[4:].strip()
            elif vendor and line[0] == "\t" and line[1] != "\t":
                product_names[vendor, line[1:5]] = line[5:].strip()
    return {ids: (vendor_names.get(ids[0], ""), product_names.get(ids, "")) for ids in asked}
