"""In which order the services repair what was left half done, and what they do each minute."""

from __future__ import annotations

from atoll.drivers.device import nic_filters
from atoll.runtime.parts import Parts
from atoll.services.images.upkeep import ImageUpkeep
from atoll.services.pool_watch import PoolWatch
from atoll.services.scheduler import Scheduler
from atoll.services.volume_snapshot_tasks import VolumeSnapshotTasks


async def repair(parts: Parts) -> list[str]:
    """Put right what a kill left, at the daemon's start. A sentence for each thing."""
    instances, custom = parts.instances, parts.custom_volumes
    return [
        *await nic_filters.sweep(),
        *await instances.updater.repair(),
        *await instances.mover.repair(),
        *await instances.refresher.repair(),
        *await instances.creator.repair(),
        *await instances.snapshots.repair(),
        *await instances.backups.repair(),
        *await custom.mover.repair(),
        *await custom.copier.repair(),
        *await parts.volumes.repair(),
        *await custom.snapshots.repair(),
        *await custom.backups.repair(),
        *await parts.images.repair(),
    ]


def pool_watch(parts: Parts) -> PoolWatch:
    """Repairs a pool that is back in the order in which `repair` does it with all of them."""
    instances, custom = parts.instances, parts.custom_volumes
    repairs = (
        *(each.repair for each in (instances.updater, instances.mover, instances.refresher)),
        *(each.repair for each in (instances.creator, instances.snapshots)),
        *(each.repair for each in (custom.mover, custom.copier, parts.volumes, custom.snapshots)),
    )
    return PoolWatch(parts.storage, parts.daemon_storage.repair, repairs, instances.lifecycle.autostart)


def scheduler(parts: Parts) -> Scheduler:
    """What the daemon does each minute."""
    instances, custom = parts.instances, parts.custom_volumes
    volumes = VolumeSnapshotTasks(parts.global_db, parts.volumes, custom.snapshots, parts.operations)
    images = ImageUpkeep(parts.global_db, parts.images, parts.puller, parts.operations, parts.settings, parts.image_rules)
    made = Scheduler()
    made.add("Expiry of snapshots", instances.snapshot_tasks.expire)
    made.add("Expiry of volume snapshots", volumes.expire)
    made.add("Expiry of backups", instances.backups.expire)
    made.add("Expiry of volume backups", custom.backups.expire)
    made.add("Upkeep of images", images.tick)
    made.add("Storage pools that are away", pool_watch(parts).tick)
    made.add("Scheduled snapshots", instances.snapshot_tasks.take)
    made.add("Scheduled volume snapshots", volumes.take)
    return made
