"""In which order the services repair what was left half done, and what they do each minute."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from atoll.drivers.device import nic_filters
from atoll.runtime.parts import Parts
from atoll.services.images.upkeep import ImageUpkeep
from atoll.services.pool_watch import PoolWatch
from atoll.services.scheduler import Scheduler
from atoll.services.volume_snapshot_tasks import VolumeSnapshotTasks

_Repair = Callable[[str | None], Awaitable[Sequence[str]]]
"""What a service does with one pool, or with all."""


async def repair(parts: Parts) -> list[str]:
    """Put right what a kill left, at the daemon's start. A sentence for each thing."""
    done = list(await nic_filters.sweep())
    for each in _of_instances(parts):
        done += await each(None)
    done += await parts.instances.backups.repair()
    for each in _of_volumes(parts):
        done += await each(None)
    return [*done, *await parts.custom_volumes.backups.repair(), *await parts.images.repair()]


def pool_watch(parts: Parts) -> PoolWatch:
    """Repairs a pool that is back in the order in which `repair` does it with all of them."""
    repairs = (*_of_instances(parts), *_of_volumes(parts))
    return PoolWatch(parts.storage, parts.daemon_storage.repair, repairs, parts.instances.lifecycle.autostart)


def _of_instances(parts: Parts) -> tuple[_Repair, ...]:
    """In the order of what stands on what."""
    instances = parts.instances
    return tuple(
        each.repair for each in (instances.updater, instances.mover, instances.refresher, instances.creator, instances.snapshots)
    )


def _of_volumes(parts: Parts) -> tuple[_Repair, ...]:
    """In the order of what stands on what."""
    custom = parts.custom_volumes
    return tuple(each.repair for each in (custom.mover, custom.copier, parts.volumes, custom.snapshots))


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
