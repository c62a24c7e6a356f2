"""The contract of storage drivers.

Vocabulary
    pool        a folder of the host (`root`, below the daemon's state) in which a driver keeps volumes
    volume      a directory tree with an owner: an instance's, an image's or a custom one. Named by VolumeId.
    data        where the volume's files are on the host: `data(volume)` is a directory that holds, for an instance,
                `rootfs/`, `templates/`, `metadata.yaml`, `backup.yaml`; for an image the same without backup.yaml;
                for a custom volume the data itself. Files have *plain* ids: whatever map an instance runs with, uid 0 of
                the guest is uid 0 in `data` (an instance that is not mounted by a shifting mount is never chowned).
                For a copy-on-write driver `data(volume)/rootfs` may be meaningful only between `mount` and `unmount`.
    disk        a custom volume whose data is one file, `root.img`. Services make, resize and read that file (`services.
                volume_contents`); to a driver it is a file like any other, whose holes stay holes in every copy.
    image volume  an unpacked image, read-only, made once per pool by `create` with a `fill` function
    mounted     usable by a machine: `mount` returns the root file system's path. Nested mounts are not counted: the service
                mounts on instance start and unmounts on stop.
    snapshot    a read-only volume that belongs to a volume.

When called
    Every call comes with the pool's lock for that volume held by the service; different volumes run at the same time.
    Each call either happens whole or leaves what `audit` repairs: write aside, fsync where it matters, rename into place.
    `audit` is called once on daemon start after `open` and before anything else, with the ids that the database knows.
    `open` is also called after `create_pool`.

Errors
    NotFound for a missing volume, Conflict for one that exists or is mounted, Unsupported for what the host or driver cannot
    do (with the reason), HostError for failures of kernel and programs, e.g. no space left.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol, runtime_checkable

from atoll.domain.idmap import IdMap


class VolumeKind(StrEnum):
    """Whose a volume is; the value is LXD's word in URLs."""

    INSTANCE = "container"
    IMAGE = "image"
    CUSTOM = "custom"

    @property
    def folder(self) -> str:
        """The folder in a pool, as LXD names it."""
        return {"container": "containers", "image": "images", "custom": "custom"}[self.value]


@dataclass(frozen=True, slots=True)
class VolumeId:
    """Names a volume in a pool. For a snapshot `snapshot` is set; for an image `name` is its fingerprint, project default."""

    kind: VolumeKind
    project: str
    name: str
    snapshot: str = ""

    @property
    def key(self) -> str:
        """One safe path segment: instances of project default go without prefix, custom volumes always have one (as LXD)."""
        if self.kind is VolumeKind.IMAGE or (self.kind is VolumeKind.INSTANCE and self.project == "default"):
            return self.name
        return f"{self.project}_{self.name}"

    @property
    def parent(self) -> VolumeId:
        """The volume that a snapshot is of."""
        return VolumeId(self.kind, self.project, self.name)

    def at(self, snapshot: str) -> VolumeId:
        """The snapshot of that name of this volume."""
        return VolumeId(self.kind, self.project, self.name, snapshot)


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool as its driver sees it. `config` is validated; `root` is the pool's folder in the daemon's state."""

    name: str
    root: Path
    config: Mapping[str, str] = field(default_factory=dict)

    @property
    def disks(self) -> Path:
        """The folder of files that hold whole pools; it stands beside that of the pools, as LXD has it."""
        return self.root.parent.parent / "disks"

    @property
    def file(self) -> Path:
        """The file of a pool that is in one."""
        return self.disks / f"{self.name}.img"


@dataclass(frozen=True, slots=True)
class Resources:
    """Space and inodes of a pool, in bytes and numbers."""

    space_total: int
    space_used: int
    inodes_total: int
    inodes_used: int


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a driver can do, as data: services ask these, never a driver's name."""

    quotas: bool = False  # sizes are enforced; of a driver's object known from `open` on
    optimized_backups: bool = False  # `send` and `receive`
    idmapped: bool = True  # `mount` shifts by itself; False: the instance driver is asked for an idmapped root


@dataclass(frozen=True, slots=True)
class Mounted:
    """What `mount` gives: the root file system's path, and whether ids on it are already shifted by the map."""

    rootfs: Path
    shifted: bool


@dataclass(frozen=True, slots=True)
class Stream:
    """What `send` wrote of a volume: of the volume itself (path "/"), or of a subvolume that a guest made in it, by its path from
    the volume's own ("/rootfs/a"); `readonly` is what it has to be when it is received, `uuid` its identity or ""."""

    path: str
    readonly: bool
    file: Path
    uuid: str = ""


Fill = Callable[[Path], Awaitable[None]]
"""Fills an empty directory (`data` of the new volume, its `rootfs/` already made) with plain-id content."""


@runtime_checkable
class Refreshing(Protocol):
    """An additional ability: to bring a copy up to date without looking at each file."""

    async def refresh(self, source: VolumeId, target: VolumeId, *, snapshots: Sequence[str] = ()) -> None:
        """Make `target`, an instance's volume that is not mounted, as `source`, another one of the pool, is now; first add
        those of `source`'s snapshots to it. The volume changes in one step, after the snapshots are all there."""


class StorageDriver(Protocol):
    """One object per pool, constructed with the Pool."""

    name: str
    capabilities: Capabilities

    @classmethod
    async def check(cls, root: Path) -> str | None:
        """Why this driver cannot work for a pool at that folder on this host, in one sentence; None if it can."""

    async def create_pool(self) -> Mapping[str, str]:
        """Make the pool; returns config keys that it decided (e.g. `source`). Nothing is left after a failure."""

    async def delete_pool(self) -> None:
        """Remove it all; the service has made sure that it is unused."""

    async def open(self) -> None:
        """Mount what the pool needs after a start of the daemon or the host; idempotent."""

    async def close(self) -> None:
        """Unmount the pool if nothing is mounted from it."""

    async def resources(self) -> Resources:
        """Space and inodes."""

    async def create(self, volume: VolumeId, fill: Fill | None = None, *, size: int | None = None) -> None:
        """A new volume, empty or filled by the function; visible only when whole. Without `Capabilities.quotas` a size is
        passed over."""

    async def clone(self, source: VolumeId, target: VolumeId, *, snapshots: Sequence[str] = ()) -> None:
        """A new volume from an image volume, a snapshot or another volume, which may be mounted; with the named snapshots of
        `source` (of the volume that it is a snapshot of), oldest first. Shares as much with the source as the driver can. The
        volume itself appears last: while it is not there, snapshots that are belong to an attempt that was cut off, and are
        the caller's to delete."""

    async def delete(self, *volumes: VolumeId) -> None:
        """Remove volumes and snapshots, in that order: a volume's snapshots before it, in this call or an earlier one. Nothing
        wrong if one is not there. Many in one call, such as all snapshots of an instance, cost far less than one by one."""

    async def rename(self, volume: VolumeId, target: VolumeId) -> None:
        """Rename a volume with its snapshots, or a snapshot."""

    async def snapshot(self, snapshot: VolumeId) -> None:
        """A read-only snapshot of `snapshot.parent`, which may be mounted."""

    async def restore(self, snapshot: VolumeId) -> None:
        """Make `snapshot.parent`, not mounted, as it was."""

    async def mount(self, volume: VolumeId, idmap: IdMap | None) -> Mounted:
        """Make the volume usable by a machine that runs with that map (None: privileged). Idempotent for the same map; a mount
        with another map is replaced. For a custom volume `rootfs` is its data, not shifted. Conflict while `open_rootfs` is
        entered."""

    async def unmount(self, volume: VolumeId) -> None:
        """The reverse; nothing wrong if it is not mounted."""

    def open_rootfs(self, volume: VolumeId) -> AbstractAsyncContextManager[Path]:
        """The root file system's path with plain ids, while the block runs, for work of the host on an instance that is not
        mounted (writable), or on a snapshot or image (read-only by agreement). Of a custom volume it is the data, also while
        machines use it. May be entered by several at once. Conflict if the volume is mounted with shifted ids: then work goes
        through the guest's namespaces, or a snapshot."""

    def data(self, volume: VolumeId) -> Path:
        """Its folder on the host. Pure; no I/O."""

    async def usage(self, volumes: Sequence[VolumeId]) -> Mapping[VolumeId, int]:
        """Bytes used, of those where the driver knows it cheaply (others are absent from the answer)."""

    async def set_size(self, volume: VolumeId, size: int | None) -> None:
        """Limit a volume to `size` bytes, also while it is in use; None takes the limit away. Unsupported, with the reason, where
        the pool cannot limit it."""

    async def audit(self, known: Collection[VolumeId]) -> Sequence[str]:
        """Finish or undo what a kill left: half-made and half-deleted volumes, stale mounts of volumes that no machine
        uses. Returns one sentence for each thing it repaired. `known` are the volumes in the database; a whole volume
        that is not known is reported, never deleted (it may be recovered)."""

    async def inventory(self) -> Sequence[VolumeId]:
        """All volumes and snapshots that are on disk, whatever the database knows. Their names are as found: whoever uses them
        validates them. Called when a lost database is to be recovered."""

    async def send(self, volume: VolumeId, target: Path, *, parent: VolumeId | None) -> Sequence[Stream]:
        """Write the volume (which no machine uses) or snapshot to `target`, a new file, in a form of the driver's own; only what
        differs from the snapshot `parent`, if one is given. What needs files of its own gets them beside it, named as LXD
        names them: NAME_ENCODED-PATH.bin beside NAME.bin. All files are told, the volume's own first. Unsupported without
        `Capabilities.optimized_backups`."""

    async def receive(self, volume: VolumeId, source: Path, *, parent: VolumeId | None, nested: Sequence[Stream] = ()) -> None:
        """Make a volume or snapshot of what `send` wrote, here or at a stranger's; what its parent was must have been received
        before, as the snapshot `parent`, unchanged since. `nested`: the other files, outer subvolumes first, when they are
        of this volume. BadRequest for a stream that is no such thing or does not fit."""


Pause = Callable[[], AbstractAsyncContextManager[None]]
"""The machine that writes to a volume does not while the block runs."""


@runtime_checkable
class CopyingSnapshots(Protocol):
    """A driver that makes the snapshot of a volume in use by copying it: of one moment only if nobody writes meanwhile."""

    async def snapshot_paused(self, snapshot: VolumeId, pause: Pause) -> None:
        """As `snapshot`, of one moment: `pause` is entered once or a few times, each time for as short as possible and for
        seconds at most, or not at all. HostError if more changes between the pauses than can be copied in one."""


@runtime_checkable
class TakingOver(Protocol):
    """A driver that can take volumes over from another pool of its kind otherwise than file by file."""

    async def take_over(self, source: StorageDriver, states: Sequence[VolumeId], target: VolumeId) -> bool:
        """Make `target` of a volume's states in another pool, oldest first: each but the last becomes a snapshot of the state's
        name. False, and nothing is made, if that pool is of another kind. What a failure leaves of the snapshots is the
        caller's to delete."""


@runtime_checkable
class AdjustablePool(Protocol):
    """A driver whose pool can be changed while it is open."""

    async def adjust(self, config: Mapping[str, str]) -> None:
        """Take the pool on to new, validated settings: mount options, a larger `size`. BadRequest for a smaller one."""
