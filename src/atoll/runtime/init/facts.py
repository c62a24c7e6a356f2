"""What `init` needs to know of a server and its host before it asks or decides."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from atoll.client.server import Server

GIB = 1 << 30
BRIDGE = "bridge"


@dataclass(frozen=True, slots=True)
class Facts:
    """drivers: storage drivers the host can carry, the best first. pools: names. networks: every interface and managed
    network the server knows, name -> (type, managed). loop_size: GiB offered for a loop file. has_nic: whether the default
    profile has a network interface already."""

    drivers: tuple[str, ...]
    pools: frozenset[str]
    networks: dict[str, tuple[str, bool]]
    loop_size: int
    has_nic: bool = False

    @property
    def managed(self) -> bool:
        """Whether there is a managed network."""
        return any(managed for _, managed in self.networks.values())


def gather(server: Server, directory: Path) -> Facts:
    """Ask the server, in four requests, and the state directory's file system."""
    environment = server.get("/1.0")["environment"]
    networks = server.get("/1.0/networks?recursion=1")
    pools = server.get("/1.0/storage-pools")
    devices = server.get("/1.0/profiles/default")["devices"] or {}
    return Facts(
        drivers=tuple(driver["Name"] for driver in environment["storage_supported_drivers"]),
        pools=frozenset(url.rpartition("/")[2] for url in pools),
        networks={row["name"]: (row["type"], row["managed"]) for row in networks},
        loop_size=loop_size(directory),
        has_nic=any(device.get("type") == "nic" for device in devices.values()),
    )


def loop_size(directory: Path) -> int:
    """A fifth of the free space in GiB, between 5 and 30."""
    free = os.statvfs(directory)
    return max(5, min(30, free.f_bavail * free.f_frsize // GIB // 5))


def is_block_device(path: str) -> bool:
    """Whether the path is one."""
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except OSError:
        return False
