"""Copying instances: all that one is, with its snapshots or without, or one snapshot; within a pool or to another one.

The rows of the copy and of its snapshots stand in the database with phase "creating" before anything is made in a pool, so that
`InstanceCreator.repair` finds all that a kill leaves.
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

from atoll import config as keys
from atoll.db import instance_copies as copies
from atoll.db import instances as rows
from atoll.db import storage as storage_rows
from atoll.db.engine import Transaction
from atoll.domain import clock
from atoll.domain.caller import Caller
from atoll.domain.entities import Instance, Snapshot, StorageVolume
from atoll.domain.errors import BadRequest, NotFound
from atoll.domain.image_metadata import Trigger
from atoll.domain.undo import Reverter
from atoll.drivers.instance.contract import MachineId
from atoll.drivers.storage.contract import CopyingSnapshots, VolumeId
from atoll.host import folders
from atoll.services.instances import pauses, transfer
from atoll.services.instances.core import InstanceCore, Loaded
from atoll.services.instances.create import CREATING, InstanceCreator, Request
from atoll.services.instances.expand import is_root_disk
from atoll.services.instances.transfer import Place
from atoll.services.operations import Operation

_BASE_IMAGE = "volatile.base_image"


@dataclass(frozen=True, slots=True)
class Source:
    """What is copied: an instance, or one snapshot of it. `instance_only` leaves its snapshots out; with `allow_inconsistent`
    the guest of a running one is not paused, even if its copy is of more than one moment then."""

    project: str
    name: str
    snapshot: str = ""
    instance_only: bool = False
    allow_inconsistent: bool = False

    @property
    def machine(self) -> MachineId:
        """The instance."""
        return MachineId(self.project, self.name)


@dataclass(frozen=True, slots=True)
class HeldSource:
    """A source of which nothing changes: the instance, the snapshots to copy, oldest first, and a volume with its content."""

    loaded: Loaded
    snapshots: Sequence[Snapshot]
    content: VolumeId


class InstanceCopier:
    """Use cases of copying."""

    def __init__(self, core: InstanceCore, creator: InstanceCreator) -> None:
        self._core = core
        self._creator = creator

    async def copy(self, request: Request, source: Source, *, caller: Caller) -> Operation:
        """The operation that makes a new instance; what the request says goes before what the source has."""
        if source.snapshot:
            loaded, subject = await self._core.load_snapshot(source.project, source.name, source.snapshot)
            request = _like(request, subject, loaded.record.type)
        else:
            loaded = await self._core.load(source.project, source.name)
            request = _like(request, loaded.record, loaded.record.type)
        return await self._creator.start(request, _Copy(self._core, source), caller=caller)


def _like(request: Request, source: Instance | Snapshot, type: str) -> Request:
    """The request, completed from the source. Volatile keys are not copied: they belong to the source alone."""
    if request.type != type:
        raise BadRequest(f"The source's type {type!r} doesn't match the instance type {request.type!r}")
    kept = {key: value for key, value in source.config.items() if not key.startswith("volatile.") or key == _BASE_IMAGE}
    return dataclasses.replace(
        request,
        config={**kept, **request.config},
        devices={**source.devices, **request.devices},
        profiles=request.profiles if request.profiles is not None else source.profiles,
        architecture=request.architecture or source.architecture,
    )


class _Copy:
    """See `create.Origin`."""

    trigger = Trigger.COPY

    def __init__(self, core: InstanceCore, source: Source) -> None:
        self._core = core
        self._source = source
        self._from: Loaded | None = None

    @property
    def machines(self) -> Sequence[MachineId]:
        return (self._source.machine,)

    async def make(self, loaded: Loaded, operation: Operation) -> None:
        wanted = self._source
        source, snapshots = await _find(self._core, wanted)
        self._from = source
        if snapshots:
            async with self._core.database.write() as tx:
                await write_snapshots(self._core, tx, source, loaded, snapshots)
        names = [each.name for each in snapshots]
        driver = self._core.storage.driver(loaded.pool)
        async with content(self._core, source, wanted, pool=loaded.pool) as volume:
            if source.pool == loaded.pool:
                await driver.clone(volume, loaded.volume, snapshots=names)
            else:
                states = states_of(self._core, source, names, volume)
                await transfer.transfer(states, Place(driver, loaded.volume))
        if names:
            place = driver.data(loaded.volume.at(names[0])).parent
            await folders.link_snapshots(self._core.paths, loaded.machine.key, place)

    async def settle(self, tx: Transaction, loaded: Loaded) -> Mapping[str, str]:
        assert self._from is not None  # `make` came before
        await copies.settle_snapshots(tx, loaded.record.id)
        await copy_volume_record(self._core, tx, self._from, loaded, self._source.snapshot)
        return {}


# --- parts that a refresh needs too ------------------------------------------------------------------------------------


async def find_whole(core: InstanceCore, project: str, name: str) -> tuple[Loaded, list[Snapshot]]:
    """An instance with its snapshots, oldest first, without those that are just being made or removed."""
    async with core.database.read() as tx:
        loaded = await core.load_in(tx, project, name)
        return loaded, [each for each in await rows.snapshots_of(tx, loaded.record.id) if not each.phase]


async def write_snapshots(
    core: InstanceCore, tx: Transaction, source: Loaded, target: Loaded, snapshots: Sequence[Snapshot]
) -> None:
    """Records of these snapshots of `source` as half-made ones of `target`, and of their volumes."""
    names = [each.name for each in snapshots]
    await copies.copy_snapshots(tx, source.record.id, target.record.id, names, phase=CREATING)
    for snapshot in snapshots:
        devices = rooted(snapshot.devices, target)
        if devices != snapshot.devices:
            await copies.set_snapshot_devices(tx, target.record.id, snapshot.name, devices)
    old, new = await volume_row(tx, source), await volume_row(tx, target)
    await copies.copy_volume_snapshots(tx, old.id, new.id, names)


async def volume_row(tx: Transaction, loaded: Loaded) -> StorageVolume:
    """The record of an instance's root volume."""
    return await storage_rows.volume(tx, loaded.pool, loaded.record.project, "container", loaded.record.name)


def rooted(devices: Mapping[str, Mapping[str, str]], target: Loaded) -> dict[str, Mapping[str, str]]:
    """A snapshot's devices with its root disk in the pool that the instance's is in, so that a restore leaves it there."""
    name, root = target.expanded.root_disk()
    changed = dict(devices)
    own = [key for key, device in devices.items() if is_root_disk(device)]
    for key in own:
        changed[key] = {**devices[key], "pool": root["pool"]}
    if not own and name in target.record.devices:
        changed[name] = root
    return changed


async def copy_volume_record(core: InstanceCore, tx: Transaction, source: Loaded, target: Loaded, snapshot: str = "") -> None:
    """Description and configuration of the source's volume, or of that snapshot of it, as far as the other pool knows them."""
    old, new = await volume_row(tx, source), await volume_row(tx, target)
    config, description = old.config, old.description
    if snapshot:
        with contextlib.suppress(NotFound):
            found = await storage_rows.volume_snapshot(tx, old.id, snapshot)
            config, description = found.config, found.description
    table = keys.volume_table(core.storage.driver(target.pool).name)
    known = {key: value for key, value in config.items() if table.find(key) is not None}
    if known != new.config or description != new.description:
        await storage_rows.update_volume(tx, new.id, description, known)


def states_of(core: InstanceCore, source: Loaded, names: Sequence[str], last: VolumeId) -> list[Place]:
    """Those snapshots of an instance, oldest first, and last the volume that has its content."""
    driver = core.storage.driver(source.pool)
    return [*(Place(driver, source.volume.at(name)) for name in names), Place(driver, last)]


@contextlib.asynccontextmanager
async def content(core: InstanceCore, source: Loaded, wanted: Source, *, pool: str) -> AsyncIterator[VolumeId]:
    """A volume with what is wanted of an instance whose lock is held, as it was in one moment, to be copied to that pool: its own
    volume, or of a running one a snapshot that is there for this alone."""
    driver = core.storage.driver(source.pool)
    if wanted.snapshot:
        yield source.volume.at(wanted.snapshot)
    elif not core.status(source.record).is_running:
        await driver.unmount(source.volume)  # a start that was cut off may have left it mounted with shifted ids
        yield source.volume
    elif pool == source.pool and (wanted.allow_inconsistent or not isinstance(driver, CopyingSnapshots)):
        yield source.volume  # the driver copies what is in use, if in one moment or not
    else:
        async with _momentary(core, source) as volume:
            yield volume


@contextlib.asynccontextmanager
async def unchanging(core: InstanceCore, wanted: Source) -> AsyncIterator[HeldSource]:
    """What is wanted: none of it changes while the block runs, which may be long. So if a snapshot is, or the instance runs, the
    instance itself is not held meanwhile: it can be stopped, started, and so on."""
    machine = wanted.machine
    async with contextlib.AsyncExitStack() as lock, contextlib.AsyncExitStack() as stack:
        await lock.enter_async_context(core.hold(machine))
        source, snapshots = await _find(core, wanted)
        if free := bool(wanted.snapshot) or core.status(source.record).is_running:
            volume = source.volume.at(wanted.snapshot)
            if not wanted.snapshot:
                volume = await stack.enter_async_context(_momentary(core, source, forgetting=lambda: core.hold(machine)))
        else:
            volume = await stack.enter_async_context(content(core, source, wanted, pool=""))
        # Let go before the momentary one is forgotten: whoever waits for one of these may hold the instance.
        read = {*(each.name for each in snapshots), volume.snapshot} - {""}
        await stack.enter_async_context(core.hold_snapshots(machine, read))
        if free:
            await lock.aclose()
        yield HeldSource(source, snapshots, volume)


async def _find(core: InstanceCore, wanted: Source) -> tuple[Loaded, list[Snapshot]]:
    """What is wanted, and the snapshots that are copied with it."""
    if wanted.snapshot:
        source, _ = await core.load_snapshot(wanted.project, wanted.name, wanted.snapshot)
        return source, []
    source, snapshots = await find_whole(core, wanted.project, wanted.name)
    return source, [] if wanted.instance_only else snapshots


@contextlib.asynccontextmanager
async def _momentary(
    core: InstanceCore,
    source: Loaded,
    *,
    forgetting: Callable[[], contextlib.AbstractAsyncContextManager[None]] = contextlib.nullcontext,
) -> AsyncIterator[VolumeId]:
    """A snapshot of a running instance, which is held, while the block runs. Until it is gone a row says so: after a kill it is
    removed. `forgetting` holds the instance if whoever uses the block does not do so to its end."""
    volume = source.volume.at(f"copy-{secrets.token_hex(4)}")
    async with core.database.write() as tx:
        row_id = await rows.create_snapshot(
            tx, source.record, volume.snapshot, created_at=clock.rfc3339(), expires_at="", phase=CREATING
        )

    async def forget() -> None:
        async with forgetting():
            await core.storage.driver(source.pool).delete(volume)
            async with core.database.write() as tx:
                await rows.delete_snapshot(tx, row_id)

    async with Reverter(f"snapshot {source.machine.key} for its copy", step_seconds=600.0) as always:
        always.add(forget)
        await pauses.snapshot_volume(core, source, volume)
        yield volume
