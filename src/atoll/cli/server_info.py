"""`atoll info` without an instance: the server's own description and its resources."""

from __future__ import annotations

from atoll.cli import times, yaml_out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


def overview(server: dict[str, Any]) -> str:
    """GET /1.0 as YAML."""
    return yaml_out.dump(server)


def resources(found: dict[str, Any]) -> str:
    """GET /1.0/resources for people: CPU, memory, network cards and disks."""
    parts = [_cpu(found.get("cpu") or {}), _memory(found.get("memory") or {})]
    parts += ["\n".join(_cards(found)), "\n".join(_disks(found))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _cpu(cpu: dict[str, Any]) -> str:
    lines = [f"CPU ({cpu.get('architecture', '')}):"]
    for socket in cpu.get("sockets") or ():
        lines += [f"  {label}: {socket[key]}" for label, key in (("Vendor", "vendor"), ("Name", "name")) if socket.get(key)]
        caches = socket.get("cache") or ()
        lines += ["  Caches:"] if caches else []
        lines += [f"    - Level {row['level']} (type: {row['type']}): {times.binary_size(row['size'], 0)}" for row in caches]
        lines.append("  Cores:")
        for core in socket.get("cores") or ():
            lines += _core(core)
    return "\n".join(lines)


def _core(core: dict[str, Any]) -> Iterator[str]:
    yield f"    - Core {core['core']}"
    yield f"      Frequency: {core.get('frequency', 0)}Mhz"
    yield "      Threads:"
    for thread in core.get("threads") or ():
        online = "true" if thread["online"] else "false"
        yield f"        - {thread['thread']} (id: {thread['id']}, online: {online}, NUMA node: {thread['numa_node']})"


def _memory(memory: dict[str, Any]) -> str:
    used, total = memory.get("used", 0), memory.get("total", 0)
    sizes = (("Free", total - used), ("Used", used), ("Total", total))
    return "\n".join(["Memory:", *(f"  {label}: {times.binary_size(size)}" for label, size in sizes)])


def _cards(found: dict[str, Any]) -> Iterator[str]:
    cards = (found.get("network") or {}).get("cards") or ()
    for title, card in _numbered("NIC", cards):
        yield title
        driver = f"{card['driver']} ({card.get('driver_version', '')})" if card.get("driver") else ""
        rows = (("NUMA node", str(card.get("numa_node", 0))), ("PCI address", card.get("pci_address")), ("Driver", driver))
        yield from (f"  {label}: {value}" for label, value in rows if value)


def _disks(found: dict[str, Any]) -> Iterator[str]:
    disks = (found.get("storage") or {}).get("disks") or ()
    for title, disk in _numbered("Disk", disks):
        yield title
        rows = (
            ("NUMA node", str(disk.get("numa_node", 0))),
            ("ID", disk.get("id")),
            ("Device", disk.get("device")),
            ("Model", disk.get("model")),
            ("Type", disk.get("type")),
            ("Size", times.binary_size(disk.get("size", 0))),
            ("Read-Only", "true" if disk.get("read_only") else "false"),
            ("Removable", "true" if disk.get("removable") else "false"),
        )
        yield from (f"  {label}: {value}" for label, value in rows if value)


def _numbered(name: str, rows: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The heading of each row: the name alone when there is one row only."""
    for index, row in enumerate(rows):
        yield f"{name}:" if len(rows) == 1 else f"{name} {index}:", row
