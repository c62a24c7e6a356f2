"""What may be after a fault: whole objects and nothing else. See `deeds` for what there is."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from box import Daemon, loop_devices

from atoll.client.server import Server

POOLS = ("default", "other")
KEPT = ("origin", "data", "tiny")
FIRST, SECOND = "one", "two"
"""What the marker of what is kept had when s0 and s1 were made."""

SETTLE_SECONDS = 20.0
"""For what the daemon removes by itself soon."""


class Verdict:
    """Looks at one daemon: what was there at the beginning must stay as it was."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._root = Path(f"/proc/{daemon.box.init}/root")  # what is mounted there is not here
        self._state = self._root / str(daemon.dir).lstrip("/")
        self._before: dict[str, set[str]] = {}

    def begin(self, server: Server) -> None:
        """What is there now has to stay."""
        self._before = self._remains(server)

    def pool(self, name: str) -> Path:
        """Where this process finds a pool."""
        return self._state / "storage-pools" / name

    # --- subjects ------------------------------------------------------------------------------------------------------

    def on_subjects(self, server: Server) -> list[str]:
        """One sentence for each object that is not whole. Instances are stopped afterwards."""
        parts = (self._on_instances, self._on_volumes, self._on_images, self._on_pools)
        return [sentence for part in parts for sentence in part(server)]

    def _on_instances(self, server: Server) -> Iterator[str]:
        for row in server.get("/1.0/instances?recursion=2"):
            name, path = row["name"], f"/1.0/instances/{row['name']}"
            kept = name in KEPT
            if row["status"] not in (("Stopped",) if kept else ("Stopped", "Running")):
                yield f"{name} is {row['status']}"
            snapshots = {each["name"] for each in row["snapshots"] or ()}
            yield from self._on_snapshots(snapshots, row["expanded_devices"]["root"]["pool"], f"containers-snapshots/{name}")
            marker = server.exchange("GET", f"{path}/files?path=/root/marker", {})
            content = marker.body.decode() if marker.status in (200, 404) else f"status {marker.status}"
            if content not in _allowed(name) and (marker.status != 404 or kept):
                yield f"{name} has the content {content!r}"
            if not kept:
                if row["status"] == "Stopped":
                    server.change("PUT", f"{path}/state", {"action": "start"})
                server.change("PUT", f"{path}/state", {"action": "stop", "force": True})
            yield from _on_backups(server, path)

    def _on_snapshots(self, names: set[str], pool: str, folder: str) -> Iterator[str]:
        place = self.pool(pool) / folder
        there = {path.name for path in place.iterdir()} if place.is_dir() else set()
        if names != there or (Path(folder).name.removeprefix("default_") in KEPT and names != {"s0", "s1"}):
            yield f"{folder} has {sorted(there)}, the database {sorted(names)}"

    def _on_volumes(self, server: Server) -> Iterator[str]:
        for pool, row in _volumes(server):
            data = self.pool(pool) / f"custom/default_{row['name']}"
            name = f"{pool}/{row['name']}"
            snapshots = {url.rpartition("/")[2] for url in server.get(f"{_volume_path(pool, row)}/snapshots")}
            yield from self._on_snapshots(snapshots, pool, f"custom-snapshots/default_{row['name']}")
            if row["content_type"] != "filesystem":
                size = (data / "root.img").stat().st_size if (data / "root.img").exists() else -1
                if row["content_type"] == "block" and size != int(row["config"]["size"].removesuffix("GiB")) << 30:
                    yield f"volume {name} has {size} bytes instead of {row['config']['size']}"
                continue
            if not data.is_dir():
                yield f"volume {name} is not there"
                continue
            marker = data / "marker"
            content = marker.read_text() if marker.exists() else ""
            if content not in _allowed(row["name"]):
                yield f"volume {name} has the content {content!r}"
            yield from _on_backups(server, _volume_path(pool, row))

    def _on_images(self, server: Server) -> Iterator[str]:
        for row in server.get("/1.0/images?recursion=1"):
            size = len(server.exchange("GET", f"/1.0/images/{row['fingerprint']}/export", {}).body)
            if size != row["size"]:
                yield f"image {row['fingerprint'][:12]} has {size} bytes instead of {row['size']}"

    def _on_pools(self, server: Server) -> Iterator[str]:
        for row in server.get("/1.0/storage-pools?recursion=1"):
            if row["status"] != "Created":
                yield f"pool {row['name']} is {row['status']}"
            elif row["name"] not in POOLS:
                volumes = f"/1.0/storage-pools/{row['name']}/volumes/custom"
                server.change("POST", volumes, {"name": "probe"})
                server.change("DELETE", f"{volumes}/probe")

    def clear(self, server: Server) -> list[str]:
        """Delete all subjects. Nothing is wrong then; ClientError for one that cannot be deleted."""
        for row in server.get("/1.0/instances?recursion=1"):
            if row["name"] not in KEPT:
                if row["status"] == "Running":
                    server.change("PUT", f"/1.0/instances/{row['name']}/state", {"action": "stop", "force": True})
                server.change("DELETE", f"/1.0/instances/{row['name']}")
        for pool, row in _volumes(server):
            if row["name"] not in KEPT:
                server.change("DELETE", _volume_path(pool, row))
        for row in server.get("/1.0/images?recursion=1"):
            if not any(alias["name"] in KEPT for alias in row["aliases"]):
                server.change("DELETE", f"/1.0/images/{row['fingerprint']}")
        for kind, kept in (("profiles", ("default",)), ("storage-pools", POOLS)):
            for row in server.get(f"/1.0/{kind}?recursion=1"):
                if row["name"] not in kept:
                    server.change("DELETE", f"/1.0/{kind}/{row['name']}")
        return []

    # --- what is left --------------------------------------------------------------------------------------------------

    def on_remains(self, server: Server) -> list[str]:
        """One sentence for each kind of things of which there are others than at the beginning, when no subject is there."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while found := list(self._differences(server)):
            if time.monotonic() > deadline:
                return found
            time.sleep(0.1)
        return []

    def _differences(self, server: Server) -> Iterator[str]:
        for kind, now in self._remains(server).items():
            before = self._before[kind]
            if now != before:
                yield f"{kind}: more {sorted(now - before)}, less {sorted(before - now)}"

    def _remains(self, server: Server) -> dict[str, set[str]]:
        rows = [row["name"] for _, row in _volumes(server)]
        rows += [row["name"] for row in server.get("/1.0/instances?recursion=1")]
        rows += [row["fingerprint"] for row in server.get("/1.0/images?recursion=1")]
        rows += [row["name"] for kind in ("profiles", "storage-pools") for row in server.get(f"/1.0/{kind}?recursion=1")]
        mounts = Path(f"/proc/{self._daemon.box.init}/mountinfo").read_text().splitlines()
        state = str(self._daemon.dir)
        return {
            "rows": set(rows),
            "folders": set(self._names()),
            "layers without a volume": set(self._spare_layers()),
            "mounts": {place for line in mounts if (place := line.split()[4]).startswith(state)},
            "loop devices": loop_devices(self._daemon.dir),
        }

    def _names(self) -> Iterator[str]:
        """What is in the state's folders that hold objects, but in those objects. Notes of renames stay until the next start, and
        layers come and go: see `_spare_layers`."""
        for pool in POOLS:
            for folder in self.pool(pool).iterdir():
                if folder.name not in (".renames", "layers"):
                    yield from self._below(folder, 2 if folder.name.endswith("-snapshots") else 1)
        folders = {"containers": 1, "snapshots": 2, "images": 1, "disks": 1, "storage-pools": 1, "backups": 1}
        folders |= {"backups/instances": 2, **{f"backups/custom/{pool}": 2 for pool in POOLS}}
        for name, depth in folders.items():
            yield from self._below(self._state / name, depth)

    def _below(self, folder: Path, depth: int) -> Iterator[str]:
        for entry in os.scandir(folder) if folder.is_dir() else ():
            yield str(Path(entry.path).relative_to(self._state))
            if depth > 1 and entry.is_dir(follow_symlinks=False):
                yield from self._below(Path(entry.path), depth - 1)

    def _spare_layers(self) -> set[str]:
        """Layers of driver overlay that no volume lies on."""
        pool = self.pool("default")
        lists = [*pool.glob("*/*/layers"), *pool.glob("*-snapshots/*/*/layers")]
        named = {layer for path in lists if path.is_file() for layer in path.read_text().split()}
        return {path.name for path in pool.glob("layers/*")} - named

    def on_the_end(self, server: Server) -> list[str]:
        """Delete what was kept, too: nothing is left in the pool."""
        server.change("DELETE", "/1.0/instances/origin")
        server.change("DELETE", "/1.0/storage-pools/default/volumes/custom/data")
        for row in server.get("/1.0/images?recursion=1"):
            server.change("DELETE", f"/1.0/images/{row['fingerprint']}")
        pool = self.pool("default")
        deadline = time.monotonic() + SETTLE_SECONDS
        while left := [str(path.relative_to(pool)) for path in pool.glob("*/*")]:
            if time.monotonic() > deadline:
                return [f"left at the end: {each}" for each in left]
            time.sleep(0.1)
        return []


def _on_backups(server: Server, path: str) -> Iterator[str]:
    for url in server.get(f"{path}/backups"):
        body = server.exchange("GET", f"{url}/export", {}).body
        try:
            with tarfile.open(fileobj=io.BytesIO(gzip.decompress(body))) as archive:
                whole = "backup/index.yaml" in archive.getnames()
        except (OSError, EOFError, tarfile.TarError):
            whole = False
        if not whole:
            yield f"the backup {url} is not whole"


def _allowed(name: str) -> set[str]:
    """Content of the marker; what was made anew has none."""
    return {SECOND} if name in KEPT else {"", FIRST, SECOND}


def _volumes(server: Server) -> list[tuple[str, dict[str, Any]]]:
    """Those that are custom, but their snapshots, each behind its pool."""
    return [
        (pool, row)
        for pool in POOLS
        for row in server.get(f"/1.0/storage-pools/{pool}/volumes/custom?recursion=1")
        if "/" not in row["name"]
    ]


def _volume_path(pool: str, row: dict[str, Any]) -> str:
    return f"/1.0/storage-pools/{pool}/volumes/custom/{row['name']}"
