"""The columns of `atoll list`: a letter each, or a configuration or device key."""

from __future__ import annotations

from atoll.cli import times
from atoll.cli.errors import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Instance = dict[str, Any]


class Column:
    """needs_state: the text comes of the instance's state or snapshots, which cost the server more."""

    __slots__ = ("header", "needs_state", "text")

    def __init__(self, header: str, text: Callable[[Instance], str], *, needs_state: bool = False) -> None:
        self.header = header
        self.text = text
        self.needs_state = needs_state


def addresses(instance: Instance, family: str) -> list[tuple[str, str]]:
    """Global addresses of a family, with the interface; loopback left out."""
    networks = (instance.get("state") or {}).get("network") or {}
    return [
        (address["address"], name)
        for name, network in networks.items()
        if network.get("type") != "loopback"
        for address in network.get("addresses") or ()
        if address["family"] == family and address["scope"] not in ("link", "local")
    ]


def _addresses(family: str) -> Callable[[Instance], str]:
    def text(instance: Instance) -> str:
        found = addresses(instance, family)
        return "\n".join(sorted((f"{address} ({name})" for address, name in found), reverse=True))

    return text


def _type(instance: Instance) -> str:
    name = (instance.get("type") or "container").upper()
    return f"{name} (EPHEMERAL)" if instance.get("ephemeral") else name


def _pool(instance: Instance) -> str:
    for device in (instance.get("expanded_devices") or {}).values():
        if device.get("type") == "disk" and device.get("path") == "/":
            return str(device.get("pool", ""))
    return ""


def _state(instance: Instance) -> dict[str, Any]:
    state: dict[str, Any] = instance.get("state") or {}
    return state


def _is_running(instance: Instance) -> bool:
    return instance.get("status") == "Running"


def _pid(instance: Instance) -> str:
    return str(_state(instance)["pid"]) if _is_running(instance) and _state(instance).get("pid") else ""


def _processes(instance: Instance) -> str:
    return str(_state(instance).get("processes", "")) if _is_running(instance) else ""


def _disk(instance: Instance) -> str:
    usage = ((_state(instance).get("disk") or {}).get("root") or {}).get("usage", 0)
    return times.binary_size(usage) if usage > 0 else ""


def _memory(instance: Instance) -> str:
    usage = (_state(instance).get("memory") or {}).get("usage", 0)
    return times.binary_size(usage) if _is_running(instance) and usage else ""


def _memory_share(instance: Instance) -> str:
    usage = (_state(instance).get("memory") or {}).get("usage", 0)
    limit = _bytes((instance.get("expanded_config") or {}).get("limits.memory", ""))
    return f"{usage * 100 / limit:.1f}%" if _is_running(instance) and usage and limit else ""


_UNITS = {"": 1, "B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4,
          "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}  # fmt: skip


def _bytes(text: str) -> int:
    """The bytes of a size such as 64MiB; 0 for anything else, a percentage for one."""
    digits = text.rstrip("kKMGTiB")
    unit = _UNITS.get(text[len(digits) :])
    return int(digits) * unit if unit and digits.isdigit() else 0


def _cpu(instance: Instance) -> str:
    usage = (_state(instance).get("cpu") or {}).get("usage", 0)
    return f"{usage // 10**9}s" if _is_running(instance) and usage else ""


def _image(instance: Instance) -> str:
    return str((instance.get("config") or {}).get("volatile.base_image", ""))


def _field(name: str) -> Callable[[Instance], str]:
    return lambda instance: str(instance.get(name) or "")


COLUMNS = {
    "4": Column("IPV4", _addresses("inet"), needs_state=True),
    "6": Column("IPV6", _addresses("inet6"), needs_state=True),
    "a": Column("ARCHITECTURE", _field("architecture")),
    "b": Column("STORAGE POOL", _pool),
    "c": Column("CREATED AT", lambda instance: times.minute(instance.get("created_at", ""))),
    "d": Column("DESCRIPTION", _field("description")),
    "D": Column("DISK USAGE", _disk, needs_state=True),
    "e": Column("PROJECT", _field("project")),
    "f": Column("BASE IMAGE", lambda instance: _image(instance)[:12]),
    "F": Column("BASE IMAGE", _image),
    "l": Column("LAST USED AT", lambda instance: times.minute(instance.get("last_used_at", ""))),
    "L": Column("LOCATION", _field("location")),
    "m": Column("MEMORY USAGE", _memory, needs_state=True),
    "M": Column("MEMORY USAGE%", _memory_share, needs_state=True),
    "n": Column("NAME", _field("name")),
    "N": Column("PROCESSES", _processes, needs_state=True),
    "p": Column("PID", _pid, needs_state=True),
    "P": Column("PROFILES", lambda instance: "\n".join(instance.get("profiles") or ())),
    "s": Column("STATE", lambda instance: str(instance.get("status") or "").upper()),
    "S": Column("SNAPSHOTS", lambda instance: str(len(instance.get("snapshots") or ())), needs_state=True),
    "t": Column("TYPE", _type),
    "u": Column("CPU USAGE", _cpu, needs_state=True),
}


def parse(text: str) -> list[Column]:
    """The columns a --columns value names: letters, and "[config:|devices:]key[:name][:maxWidth]" between commas."""
    columns: list[Column] = []
    for part in text.split(","):
        if not part:
            raise CommandError(f"Empty column entry (redundant, leading or trailing command) in '{text}'")
        if "." in part:
            columns.append(_custom(part))
            continue
        for letter in part:
            if letter not in COLUMNS:
                raise CommandError(f"Unknown column shorthand char '{letter}' in '{part}'")
            columns.append(COLUMNS[letter])
    return columns


def _custom(part: str) -> Column:
    words = part.split(":")
    source = words.pop(0) if words[0] in ("config", "devices") else "config"
    if len(words) > 3:
        raise CommandError(f"Invalid config key column format (too many fields): '{part}'")
    key, name, limit = [*words, "", ""][:3]
    header = name or key
    size = _limit(limit, part)
    fetch = _config_value(key) if source == "config" else _device_value(key)
    if size < 0:
        return Column(header, fetch)
    return Column(header, lambda instance: fetch(instance)[: size or len(header)])


def _limit(text: str, part: str) -> int:
    try:
        limit = int(text or -1)
    except ValueError:
        limit = -2
    if limit < -1:
        raise CommandError(f"Invalid max width (must be an integer -1 or above) '{text}' in '{part}'")
    return limit


def _config_value(key: str) -> Callable[[Instance], str]:
    return lambda instance: str((instance.get("expanded_config") or instance.get("config") or {}).get(key, ""))


def _device_value(key: str) -> Callable[[Instance], str]:
    name, _, option = key.partition(".")
    return lambda instance: str(((instance.get("expanded_devices") or {}).get(name) or {}).get(option, ""))
