"""The systems under test: programs, environment and grammar of each. What differs between them is said here alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SUBNET = "10.99.0.1/20"
POOL_SIZE = "30GiB"


@dataclass(frozen=True)
class System:
    """One of the compared systems.

    `programs` are the client and the daemon as names or paths; `prefix` begins its environment variables (LXD_DIR …);
    `admin` goes between the program that sets the daemon up (`setup`) and init or waitready.
    """

    key: str
    title: str
    client: str
    daemon: str
    setup: tuple[str, ...]
    prefix: str
    pool: Mapping[str, object]
    snapshot_verb: tuple[str, ...] = ("snapshot",)
    packages: tuple[str, ...] = ()
    search_path: tuple[str, ...] = field(default=("/usr/sbin", "/usr/bin", "/sbin", "/bin"))

    def environment(self, root: Path) -> dict[str, str]:
        """The whole environment of daemon and client; state below `root`, nothing inherited."""
        return {
            "PATH": ":".join(self.search_path),
            "HOME": str(root / "home"),
            "LANG": "C.UTF-8",
            f"{self.prefix}_DIR": str(self.state(root)),
            f"{self.prefix}_CONF": str(root / "conf"),
        }

    def state(self, root: Path) -> Path:
        return root / "state"

    def socket(self, root: Path) -> Path:
        return self.state(root) / "unix.socket"

    def waitready(self) -> list[str]:
        return [*self.setup, "waitready", "--timeout", "60"]

    def init(self) -> list[str]:
        return [*self.setup, "init", "--preseed"]

    def preseed(self) -> str:
        """The same host for all: one pool, one managed bridge with DHCP and NAT, one profile. JSON, hence also YAML."""
        bridge = {"ipv4.address": SUBNET, "ipv4.nat": "true", "ipv6.address": "none"}
        devices = {
            "root": {"type": "disk", "path": "/", "pool": "default"},
            "eth0": {"type": "nic", "name": "eth0", "network": "benchbr0"},
        }
        return json.dumps(
            {
                "networks": [{"name": "benchbr0", "type": "bridge", "config": bridge}],
                "storage_pools": [{"name": "default", **self.pool}],
                "profiles": [{"name": "default", "devices": devices}],
            }
        )

    def import_image(self, archive: Path, alias: str) -> list[str]:
        return [self.client, "image", "import", str(archive), "--alias", alias]

    def launch(self, image: str, name: str) -> list[str]:
        return [self.client, "launch", image, name]

    def create(self, image: str, name: str) -> list[str]:
        return [self.client, "init", image, name]

    def start(self, name: str) -> list[str]:
        return [self.client, "start", name]

    def stop(self, name: str) -> list[str]:
        return [self.client, "stop", "--force", name]

    def delete(self, name: str) -> list[str]:
        return [self.client, "delete", name]

    def delete_running(self, name: str) -> list[str]:
        return [self.client, "delete", "--force", name]

    def execute(self, name: str, *command: str) -> list[str]:
        return [self.client, "exec", name, "--", *command]

    def snapshot(self, name: str, snapshot: str) -> list[str]:
        return [self.client, *self.snapshot_verb, name, snapshot]

    def copy(self, source: str, name: str) -> list[str]:
        return [self.client, "copy", source, name]

    def list_all(self) -> list[str]:
        return [self.client, "list"]

    def show_help(self) -> list[str]:
        return [self.client, "--help"]


_LOOP_BTRFS: Mapping[str, object] = {"driver": "btrfs", "config": {"size": POOL_SIZE}}

LXD = System(
    key="lxd",
    title="LXD",
    client="lxc",
    daemon="lxd",
    setup=("lxd",),
    prefix="LXD",
    pool=_LOOP_BTRFS,
    packages=("lxd", "lxd-client"),
)

INCUS = System(
    key="incus",
    title="Incus",
    client="incus",
    daemon="incusd",
    setup=("incus", "admin"),
    prefix="INCUS",
    pool=_LOOP_BTRFS,
    snapshot_verb=("snapshot", "create"),
    packages=("incus-base", "incus-client"),
    # Debian keeps the daemon apart from the users' programs
    search_path=("/usr/libexec/incus", "/usr/sbin", "/usr/bin", "/sbin", "/bin"),
)


def atoll(programs: Path | None, *, backend: str = "overlay") -> System:
    """Atoll, from the directory `programs`, or from PATH when that is None, with that storage driver."""
    client, daemon = ("atoll", "atolld") if programs is None else (str(programs / "atoll"), str(programs / "atolld"))
    return System(
        key="atoll",
        title="Atoll",
        client=client,
        daemon=daemon,
        setup=(daemon,),
        prefix="ATOLL",
        pool=_LOOP_BTRFS if backend == "btrfs" else {"driver": backend},
        search_path=("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"),
    )
