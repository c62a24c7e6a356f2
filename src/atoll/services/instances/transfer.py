"""Bringing a volume with its snapshots to another pool, and one volume up to another's date, through the files themselves.

The oldest state is copied whole, each later one over it as far as it differs, with a snapshot in between: in the other pool the
states share what they shared before, if its driver can. All of it is done with plain ids: nothing is chowned.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from atoll.drivers.storage.contract import StorageDriver, TakingOver, VolumeId, VolumeKind
from atoll.host import disk_image, small_files, trees, treesync

BESIDE = ("metadata.yaml", "backup.yaml", "templates")
"""What stands beside the root file system."""


@dataclass(frozen=True, slots=True)
class Place:
    """A volume or a snapshot in a pool. `is_disk`: its data is one file that is a disk, see `disk_image`."""

    driver: StorageDriver
    volume: VolumeId
    is_disk: bool = False

    def at(self, snapshot: str) -> Place:
        """The volume's snapshot of that name."""
        return dataclasses.replace(self, volume=self.volume.at(snapshot))


async def transfer(states: Sequence[Place], target: Place) -> None:
    """Make the volume `target` with all the states, oldest first: each but the last becomes a snapshot of the state's name.

    None of them changes meanwhile. What a failure leaves of the target's snapshots is the caller's to delete.
    """
    first, *later = states
    if isinstance(target.driver, TakingOver):
        volumes = [state.volume for state in states]
        if await target.driver.take_over(first.driver, volumes, target.volume):
            return

    async def fill(data: Path) -> None:
        async with first.driver.open_rootfs(first.volume) as rootfs:
            await trees.copy_still(rootfs, data / "rootfs" if _has_beside(first.volume) else data)
        await _copy_beside(first, data)

    await target.driver.create(target.volume, fill)
    for state, before in zip(later, states, strict=False):
        await target.driver.snapshot(target.at(before.volume.snapshot).volume)
        await bring(state, target)


async def bring(state: Place, target: Place) -> None:
    """Make an existing volume, which is not mounted, as that state is. After a failure it is something in between."""
    async with state.driver.open_rootfs(state.volume) as rootfs, target.driver.open_rootfs(target.volume) as copy:
        if state.is_disk:
            await disk_image.sync(rootfs, copy)
        else:
            await treesync.sync(rootfs, copy)
    await _copy_beside(state, target.driver.data(target.volume))


def _has_beside(volume: VolumeId) -> bool:
    """A custom volume is its data alone."""
    return volume.kind is not VolumeKind.CUSTOM


async def _copy_beside(state: Place, data: Path) -> None:
    if _has_beside(state.volume):
        await small_files.copy(state.driver.data(state.volume), data, BESIDE)


async def refresh(states: Sequence[Place], target: Place) -> None:
    """As `transfer`, for a target that exists and has none of the snapshots."""
    *snapshots, last = states
    for state in snapshots:
        await bring(state, target)
        await target.driver.snapshot(target.at(state.volume.snapshot).volume)
    await bring(last, target)
