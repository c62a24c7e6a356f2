"""Volumes out of an optimized archive, in the form of the pool's driver."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

from atoll.domain.backup_metadata import OptimizedHeader
from atoll.drivers.storage.contract import StorageDriver, Stream, VolumeId
from atoll.host import archive_backup
from atoll.host.archive_backup import Shape
from atoll.host.archive_tar import Budget
from atoll.host.threads import in_thread


async def receive(
    path: Path,
    shape: Shape,
    header: OptimizedHeader,
    driver: StorageDriver,
    volume: VolumeId,
    snapshots: Sequence[str],
    *,
    folder: Path,
    budget: Budget,
) -> None:
    """Make the volume of the archive `path`: each snapshot, oldest first, as a change of the one before, then itself. `folder` is
    for streams on their way. What a failure leaves of the snapshots is the caller's to delete."""
    parent: VolumeId | None = None
    for snapshot in (*snapshots, ""):
        target = volume.at(snapshot) if snapshot else volume
        stem = shape.place(snapshot)
        nested = [
            Stream(each.path, each.readonly, await _extract(path, f"{stem}_{_encoded(each.path)}.bin", folder, budget), each.uuid)
            for each in header.subvolumes
            if each.snapshot == snapshot and each.path != "/"
        ]
        source = await _extract(path, f"{stem}.bin", folder, budget)
        await driver.receive(target, source, parent=parent, nested=nested)
        for file in (source, *(each.file for each in nested)):
            await in_thread(file.unlink)
        parent = target


async def _extract(path: Path, name: str, folder: Path, budget: Budget) -> Path:
    target = folder / f"stream-{secrets.token_hex(8)}"
    await archive_backup.extract_file(path, name, target, budget)
    return target


def _encoded(path: str) -> str:
    """A subvolume's path in a file's name, as LXD writes it."""
    return path.strip("/").replace("-", "--").replace("/", "-")
