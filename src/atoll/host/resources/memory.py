"""Memory: of the host and of each NUMA node, huge pages."""

from __future__ import annotations

from typing import Any

from atoll.host.resources.sysfs import Tree

_SYSTEM = "sys/devices/system"


def read(tree: Tree) -> dict[str, Any]:
    """Memory that can be had again at once (buffers, page cache) does not count as used."""
    figures = _figures(tree.text("proc/meminfo"))
    total = _total(tree, f"{_SYSTEM}/memory") or figures.get("MemTotal", 0)
    free = sum(figures.get(name, 0) for name in ("MemFree", "Buffers", "Cached"))
    page = figures.get("Hugepagesize", 0)
    return {
        "nodes": [_node(tree, name) for name in tree.names(f"{_SYSTEM}/node") if _is_node(name)],
        "hugepages_total": figures.get("HugePages_Total", 0) * page,
        "hugepages_used": (figures.get("HugePages_Total", 0) - figures.get("HugePages_Free", 0)) * page,
        "hugepages_size": page,
        "used": max(total - free, 0),
        "total": total,
    }


def _is_node(name: str) -> bool:
    return name.startswith("node") and name[4:].isdigit()


def _node(tree: Tree, name: str) -> dict[str, int]:
    folder = f"{_SYSTEM}/node/{name}"
    prefix = f"Node {name[4:]} "
    lines = (line.removeprefix(prefix) for line in tree.text(f"{folder}/meminfo").splitlines())
    figures = _figures("\n".join(lines))
    page = _figures(tree.text("proc/meminfo")).get("Hugepagesize", 0)
    total = _total(tree, folder) or figures.get("MemTotal", 0)
    return {
        "numa_node": int(name[4:]),
        "hugepages_used": (figures.get("HugePages_Total", 0) - figures.get("HugePages_Free", 0)) * page,
        "hugepages_total": figures.get("HugePages_Total", 0) * page,
        "used": figures.get("MemUsed", 0),
        "total": total,
    }


def _figures(text: str) -> dict[str, int]:
    """Lines of `meminfo`: bytes where the line says kB, else the bare number."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if words and words[0].isdigit():
            found[name] = int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    return found


def _total(tree: Tree, folder: str) -> int:
    """Memory that is plugged in, which is more than the kernel has to give; 0 where the kernel does not show its blocks."""
    size = tree.number(f"{_SYSTEM}/memory/block_size_bytes", base=16)
    blocks = [name for name in tree.names(folder) if name.startswith("memory") and name[6:].isdigit()]
    return size * sum(tree.number(f"{folder}/{name}/online") == 1 for name in blocks)
