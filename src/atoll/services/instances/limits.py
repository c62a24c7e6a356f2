"""From expanded configuration to what a machine's driver applies. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from atoll import config as keys
from atoll.config import units
from atoll.drivers.instance.contract import DiskLimit, Limits, SyscallPolicy


def from_config(
    config: Mapping[str, str], *, memory_total: int, cpu_set: str, disks: Mapping[str, DiskLimit] | None = None
) -> Limits:
    """All `limits.*` parsed; percentages are of `memory_total` bytes. `cpu_set` is what was made of `limits.cpu`, among all
    machines (see `cpu_balance`), `disks` what the limits of disk devices come to (see `disk_limits`)."""
    quota, period, shares = _cpu_time(config)
    return Limits(
        cpu_set=cpu_set,
        cpu_quota_us=quota,
        cpu_period_us=period,
        cpu_shares=shares,
        memory_bytes=_memory(config.get("limits.memory", ""), memory_total),
        memory_soft=config.get("limits.memory.enforce") == "soft",
        memory_swap=bool(keys.INSTANCE.get(config, "limits.memory.swap")),
        memory_swap_priority=_number(config, "limits.memory.swap.priority"),
        processes=_number(config, "limits.processes"),
        disk_priority=_number(config, "limits.disk.priority"),
        disks=disks or {},
        network_priority=_number(config, "limits.network.priority") or 0,
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


def syscalls_from(config: Mapping[str, str]) -> SyscallPolicy:
    """All `security.syscalls.*` but interception, and `raw.seccomp`."""
    prefix = "security.syscalls"
    return SyscallPolicy(
        deny_default=keys.INSTANCE.flag(config, f"{prefix}.deny_default"),
        deny_compat=keys.INSTANCE.flag(config, f"{prefix}.deny_compat"),
        deny=keys.INSTANCE.get(config, f"{prefix}.deny") or (),
        allow=keys.INSTANCE.get(config, f"{prefix}.allow") or (),
        raw=config.get("raw.seccomp", ""),
    )


def _number(config: Mapping[str, str], key: str) -> int | None:
    return int(config[key]) if config.get(key) else None


def _cpu_time(config: Mapping[str, str]) -> tuple[int | None, int, int | None]:
    """(quota, period, shares) of limits.cpu.allowance and limits.cpu.priority, as LXD computes them."""
    allowance = keys.INSTANCE.get(config, "limits.cpu.allowance") if config.get("limits.cpu.allowance") else None
    lowered = 10 - int(config.get("limits.cpu.priority") or 10)
    if allowance is not None and allowance.percent:
        return None, 100_000, max(2, 1024 * allowance.percent // 100 - lowered)
    shares = 1024 - lowered if lowered else None
    if allowance is not None:
        return allowance.quota_ms * 1000, allowance.period_ms * 1000, shares
    return None, 100_000, shares


def _memory(text: str, total: int) -> int | None:
    if not text:
        return None
    if text.endswith("%"):
        return total * int(text[:-1]) // 100
    return int(units.parse_size(text))
