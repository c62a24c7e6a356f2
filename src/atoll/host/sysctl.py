"""Kernel settings below /proc/sys/net, by path segments: an interface's name may contain dots."""

from __future__ import annotations

from pathlib import Path

from atoll.domain import names
from atoll.domain.errors import HostError

_ROOT = Path("/proc/sys/net")


def interface_path(family: str, interface: str, key: str) -> Path:
    """The file of one interface's setting; `family` is ipv4 or ipv6."""
    return _ROOT / family / "conf" / names.interface(interface) / key


def read(*segments: str) -> str | None:
    """The value of net/SEGMENTS; None where this kernel has none."""
    try:
        return _ROOT.joinpath(*segments).read_text().strip()
    except OSError:
        return None


def has_ipv6() -> bool:
    """Whether this kernel speaks IPv6."""
    return (_ROOT / "ipv6").is_dir()


def set_interface(family: str, interface: str, key: str, value: str) -> None:
    """Set it unless it is so already. Passed over where the kernel has no such setting (IPv6 switched off at boot)."""
    path = interface_path(family, interface, key)
    if path.exists():
        _set(path, value)


def enable_ipv4_forwarding() -> None:
    """Route IPv4 on this host."""
    _set(_ROOT / "ipv4" / "ip_forward", "1")


def enable_ipv6_forwarding() -> None:
    """Route IPv6 on this host. Interfaces that take router advertisements go on taking them, which routing would end."""
    switch = _ROOT / "ipv6/conf/all/forwarding"
    if not switch.exists() or switch.read_text().strip() == "1":
        return
    for path in (_ROOT / "ipv6/conf").glob("*/accept_ra"):
        if path.read_text().strip() == "1":
            path.write_text("2")
    _set(switch, "1")


def _set(path: Path, value: str) -> None:
    try:
        if path.read_text().strip() != value:
            path.write_text(value)
    except OSError as error:
        raise HostError(f"Failed to set {path} to {value}: {error.strerror}") from error
