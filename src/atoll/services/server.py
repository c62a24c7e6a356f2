"""What the server says of itself: the environment part of GET /1.0."""

from __future__ import annotations

import os
import platform
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll.domain import architectures
from atoll.drivers.instance.contract import DriverInfo
from atoll.host import netlink
from atoll.host.threads import in_thread
from atoll.host.tls import ServerTls
from atoll.services.settings import SettingsService
from atoll.version import ATOLL_VERSION, COMPAT_VERSION

DEFAULT_PORT = 8443

_ADDRESSES_HOLD = 10.0
"""Seconds after which the host's addresses, which change without a word to us, are looked up again."""

_SINCE_KERNEL = {
    "idmapped_mounts": (5, 12),
    "netnsid_getifaddrs": (4, 20),
    "seccomp_listener": (5, 0),
    "seccomp_listener_continue": (5, 5),
    "uevent_injection": (4, 18),
    "unpriv_fscaps": (4, 14),
}
"""The kernel features that LXD tells of, and the release that brought each."""


@dataclass(frozen=True, slots=True)
class StorageInfo:
    """A storage driver that works on this host."""

    name: str
    version: str
    remote: bool = False


class ServerInfo:
    """Facts about the server. `active_storage` tells the names of the drivers of the open pools; it is asked often."""

    def __init__(
        self,
        settings: SettingsService,
        tls: ServerTls,
        *,
        instance_driver: DriverInfo,
        storage_drivers: Sequence[StorageInfo],
        active_storage: Callable[[], Sequence[str]],
    ) -> None:
        self._settings = settings
        self._tls = tls
        self._instance_driver = instance_driver
        self._storage = {info.name: info for info in storage_drivers}
        self._active_storage = active_storage
        self._fixed = _fixed_facts()
        self._addresses: tuple[str, ...] = ()
        self._looked_up = -_ADDRESSES_HOLD
        settings.on_commit(self._forget_addresses)

    def _forget_addresses(self) -> None:
        self._looked_up = -_ADDRESSES_HOLD

    def auth_methods(self) -> list[str]:
        """How clients may log in. Candid is told of as LXD does when it is set up; Atoll itself has no login by it."""
        return ["tls", "candid"] if self._settings.text("candid.api.url") else ["tls"]

    async def addresses(self) -> tuple[str, ...]:
        """Where clients reach the HTTPS listener: `10.0.0.1:8443`, `[2001:db8::1]:8443`; a wildcard is all of the host's."""
        now = time.monotonic()
        if now - self._looked_up >= _ADDRESSES_HOLD:
            self._addresses = tuple(await _reachable(self._settings))
            self._looked_up = now
        return self._addresses

    async def state(self) -> tuple[object, ...]:
        """Changes whenever `environment` would; cheap."""
        return await self.addresses(), tuple(self._active_storage()), self._tls.fingerprint

    async def environment(self) -> dict[str, Any]:
        """LXD's `environment`, without `project`, which depends on the request."""
        active = sorted(set(self._active_storage()))
        return {
            "addresses": list(await self.addresses()),
            "certificate": self._tls.certificate,
            "certificate_fingerprint": self._tls.fingerprint,
            "driver": self._instance_driver.name,
            "driver_version": self._instance_driver.version,
            "lxc_features": dict(self._instance_driver.features),
            "storage": " | ".join(active),
            "storage_version": " | ".join(self._storage[name].version if name in self._storage else "" for name in active),
            "storage_supported_drivers": [
                {"Name": info.name, "Version": info.version, "Remote": info.remote} for info in self._storage.values()
            ],
            **self._fixed,
        }


def _fixed_facts() -> dict[str, Any]:
    """What does not change while the daemon runs."""
    kernel = os.uname()
    system = _os_release(Path("/etc/os-release"), Path("/usr/lib/os-release"))
    return {
        "architectures": list(architectures.supported_by(kernel.machine)),
        "firewall": "nftables",
        "kernel": kernel.sysname,
        "kernel_architecture": kernel.machine,
        "kernel_features": kernel_features(kernel.release),
        "kernel_version": kernel.release,
        "os_name": system.get("NAME", ""),
        "os_version": system.get("VERSION_ID", ""),
        "server": "lxd",
        "server_clustered": False,
        "server_event_mode": "full-mesh",
        "server_name": socket.gethostname(),
        "server_pid": os.getpid(),
        "server_version": COMPAT_VERSION,
        "atoll_version": ATOLL_VERSION,
    }


def kernel_features(release: str) -> dict[str, str]:
    """LXD's kernel features of a kernel release, as "true" and "false"."""
    numbers = release.split("-")[0].split(".")[:2]
    version = tuple(int(number) for number in numbers if number.isdigit())
    known = {name: str(version >= since).lower() for name, since in _SINCE_KERNEL.items()}
    return {**known, "shiftfs": "false"}


def _os_release(*files: Path) -> Mapping[str, str]:
    file = next((file for file in files if file.exists()), None)
    if file is None:
        return {"NAME": platform.system()}
    pairs = (line.partition("=") for line in file.read_text(errors="replace").splitlines())
    return {key: value.strip("\"'") for key, separator, value in pairs if separator}


async def _reachable(settings: SettingsService) -> list[str]:
    listen = settings.get("core.https_address")
    if listen is None:
        return []
    port = listen.port or DEFAULT_PORT
    if listen.host not in ("", "0.0.0.0", "::"):
        return [join(listen.host, port)]
    hosts = await in_thread(_global_addresses, v4_only=listen.host == "0.0.0.0")
    return [join(host, port) for host in hosts]


def _global_addresses(*, v4_only: bool) -> list[str]:
    """The addresses of the host that others could reach."""
    found = [address.interface.ip for link in netlink.links().values() for address in link.addresses]
    return [str(ip) for ip in found if not (ip.is_loopback or ip.is_link_local or (v4_only and ip.version == 6))]


def join(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
