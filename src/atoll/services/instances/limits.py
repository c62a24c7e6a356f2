"""From expanded configuration to what a machine's driver applies. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from atoll import config as keys
from atoll.config import units
from atoll.drivers.instance.contract import Limits


def from_config(config: Mapping[str, str], *, memory_total: int, cpus: int) -> Limits:
    """All `limits.*` parsed; percentages are of `memory_total` bytes."""
    quota, period, shares = _cpu_time(config)
    return Limits(
        cpu_set=_cpu_set(config.get("limits.cpu", ""), cpus),
        cpu_quota_us=quota,
        cpu_period_us=period,
        cpu_shares=shares,
        memory_bytes=_memory(config.get("limits.memory", ""), memory_total),
        memory_soft=config.get("limits.memory.enforce") == "soft",
        memory_swap=bool(keys.INSTANCE.get(config, "limits.memory.swap")),
        memory_swap_priority=_number(config, "limits.memory.swap.priority"),
        processes=_number(config, "limits.processes"),
        disk_priority=_number(config, "limits.disk.priority"),
        hugepages={
            size: keys.INSTANCE.get(config, f"limits.hugepages.{size}")
            for size in ("64KB", "1MB", "2MB", "1GB")
            if config.get(f"limits.hugepages.{size}")
        },
        rlimits={
            key.removeprefix("limits.kernel."): value
            for key, value in sorted(config.items())
            if key.startswith("limits.kernel.") and value
        },
    )


def _number(config: Mapping[str, str], key: str) -> int | None:
    return int(config[key]) if config.get(key) else None


def _cpu_set(text: str, cpus: int) -> str:
    """`limits.cpu`: a count pins to the first CPUs of the host (at most all), a set is taken as it is."""
    if not text:
        return ""
    if text.isdigit():
        count = int(text)
        return "" if count >= cpus or count == 0 else f"0-{count - 1}" if count > 1 else "0"
    return text


def _cpu_time(config: Mapping[str, str]) -> tuple[int | None, int, int | None]:
    """(quota, period, shares) of limits.cpu.allowance and limits.cpu.priority, as LXD computes them."""
    allowance = config.get("limits.cpu.allowance", "")
    priority = int(config.get("limits.cpu.priority") or 10)
    lowered = 10 - priority
    if allowance.endswith("%"):
        return None, 100_000, max(2, 1024 * int(allowance[:-1]) // 100 - lowered)
    if "/" in allowance:
        used, _, whole = allowance.partition("/")
        quota, period = (int(part.strip().removesuffix("ms")) * 1000 for part in (used, whole))
        return quota, period, 1024 - lowered if lowered else None
    return None, 100_000, 1024 - lowered if lowered else None


def _memory(text: str, total: int) -> int | None:
    if not text:
        return None
    if text.endswith("%"):
        return total * int(text[:-1]) // 100
    return int(units.parse_size(text))
