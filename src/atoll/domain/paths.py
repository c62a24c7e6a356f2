"""Where things are in the daemon's state directory; the names are LXD's, so that scripts find them. Pure: makes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Paths:
    """Folders and files below one state directory, each with its mode in `FOLDERS`."""

    root: Path

    @property
    def socket(self) -> Path:
        """The API's unix socket."""
        return self.root / "unix.socket"

    @property
    def global_database(self) -> Path:
        """What a cluster would share."""
        return self.root / "database" / "global" / "db.bin"

    @property
    def local_database(self) -> Path:
        """What concerns this host only."""
        return self.root / "database" / "local.db"

    @property
    def server_certificate(self) -> tuple[Path, Path]:
        """Certificate and key of the HTTPS listener."""
        return self.root / "server.crt", self.root / "server.key"

    @property
    def images(self) -> Path:
        """Image files, named by fingerprint; `FINGERPRINT.rootfs` beside it for a split image."""
        return self.root / "images"

    @property
    def streams(self) -> Path:
        """What image servers said last."""
        return self.root / "cache" / "streams"

    @property
    def backups(self) -> Path:
        """Backup files."""
        return self.root / "backups"

    def instance_backups(self, key: str) -> Path:
        """An instance's backup files."""
        return self.backups / "instances" / key

    @property
    def pools(self) -> Path:
        """A folder for each storage pool."""
        return self.root / "storage-pools"

    @property
    def networks(self) -> Path:
        """A folder for each managed network."""
        return self.root / "networks"

    @property
    def containers(self) -> Path:
        """A link to each instance's volume."""
        return self.root / "containers"

    @property
    def devlxd(self) -> Path:
        """The folder that instances see as /dev/lxd."""
        return self.root / "devlxd"

    @property
    def devlxd_socket(self) -> Path:
        """The guest API's unix socket."""
        return self.devlxd / "sock"

    def snapshots(self, key: str) -> Path:
        """A link to the snapshots of an instance's volume, while it has some."""
        return self.root / "snapshots" / key

    def logs(self, key: str) -> Path:
        """An instance's logs."""
        return self.root / "logs" / key

    def run(self, key: str) -> Path:
        """What an instance's driver keeps while it runs."""
        return self.root / "run" / key

    def devices(self, key: str) -> Path:
        """What an instance's devices keep on the host."""
        return self.root / "devices" / key


FOLDERS = {
    "": 0o711,
    "backups": 0o700,
    "backups/custom": 0o700,
    "backups/instances": 0o700,
    "cache": 0o700,
    "cache/streams": 0o700,
    "containers": 0o711,
    "database": 0o700,
    "database/global": 0o700,
    "devices": 0o711,
    "disks": 0o700,
    "devlxd": 0o755,
    "images": 0o700,
    "logs": 0o700,
    "networks": 0o711,
    "run": 0o711,
    "snapshots": 0o700,
    "storage-pools": 0o711,
}
"""Folders of a state directory and their modes."""
