"""What a custom volume's backup says of itself, and what goes into its archive, as LXD 5.0 lays them out.

backup/index.yaml, then for each snapshot backup/volume-snapshots/NAME/…, then backup/volume/…
disks: backup/index.yaml, then for each snapshot backup/volume-snapshots/NAME.img, then backup/volume.img
optimized: backup/index.yaml, backup/optimized_header.yaml, backup/volume-snapshots/NAME.bin, …, backup/volume.bin
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll.domain import clock, volume_backup_metadata, yaml_text
from atoll.domain.entities import StoragePool, StorageVolume, VolumeSnapshot
from atoll.drivers.storage.contract import StorageDriver, VolumeId
from atoll.host import disk_image
from atoll.host.archive_backup import CUSTOM, DISK_SUFFIX
from atoll.host.archive_sandbox import Bind
from atoll.services.instances import backup_content
from atoll.services.instances.backup_content import Content


@dataclass(frozen=True, slots=True)
class Subject:
    """All that a backup describes. Snapshots are oldest first."""

    volume: StorageVolume
    snapshots: Sequence[VolumeSnapshot]
    pool: StoragePool


async def plain(stack: AsyncExitStack, driver: StorageDriver, subject: Subject, content: VolumeId, stage: Path) -> Content:
    """Every file, in the form that any server can read. `content` has what the volume has; what is held for it is let go with the
    stack. Small files are made in `stage`."""
    result = Content()
    await backup_content.add_index(result, stage, index(subject))
    for snapshot in (*(each.name for each in subject.snapshots), ""):
        volume = content.parent.at(snapshot) if snapshot else content
        data = await stack.enter_async_context(driver.open_rootfs(volume))
        is_disk, place = subject.volume.content.is_disk, CUSTOM.place(snapshot)
        bind = Bind(data / disk_image.FILE, f"{place}{DISK_SUFFIX}") if is_disk else Bind(data, place)
        result.members.append(bind)
        result.names.append(bind.name)
    return result


async def optimized(driver: StorageDriver, subject: Subject, content: VolumeId, stage: Path) -> Content:
    """As `plain`, in the form of the pool's driver."""
    result = Content()
    await backup_content.add_index(result, stage, index(subject, optimized=True))
    await backup_content.streams(result, driver, CUSTOM, [each.name for each in subject.snapshots], content, stage)
    return result


def index(subject: Subject, *, optimized: bool = False) -> bytes:
    """`backup/index.yaml`."""
    return yaml_text.dump(
        {
            "name": subject.volume.name,
            "backend": subject.pool.driver,
            "pool": subject.pool.name,
            "snapshots": [snapshot.name for snapshot in subject.snapshots],
            "optimized": optimized,
            "optimized_header": optimized,
            "type": volume_backup_metadata.TYPE,
            "config": {
                "volume": volume(subject.volume),
                "volume_snapshots": [snapshot(subject.volume, each) for each in subject.snapshots],
            },
        }
    )


def volume(record: StorageVolume) -> dict[str, Any]:
    """A volume, as LXD describes it."""
    return {
        "config": dict(record.config),
        "description": record.description,
        "name": record.name,
        "type": record.type,
        "used_by": [],
        "location": record.member,
        "content_type": record.content_type,
        "project": record.project,
        "created_at": record.created_at or clock.NEVER,
    }


def snapshot(of: StorageVolume, record: VolumeSnapshot) -> dict[str, Any]:
    """A snapshot of a volume."""
    return {
        "description": record.description,
        "expires_at": record.expires_at or clock.NEVER,
        "name": record.name,
        "config": dict(record.config),
        "content_type": of.content_type,
        "created_at": record.created_at or clock.NEVER,
    }
