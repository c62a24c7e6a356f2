"""The target's side: an instance that comes from another server, or one that is brought up to date from there.

The other server chooses nothing here: name, project and configuration are the request's, the pool that of its root disk, names of
snapshots are validated, and their configuration passes the gate of every new instance. Files are received in a jail, and owners
are those of the instance, whatever ids the source's host has for them.

A kill leaves a row with phase "creating", or "refreshing", as those of local copies: `InstanceCreator.repair` and
`InstanceRefresher.repair` know what to do.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from atoll.db import instance_copies as copies
from atoll.db.engine import Transaction
from atoll.domain.backup_metadata import InstanceBackup, InstanceEntry
from atoll.domain.caller import Caller
from atoll.domain.errors import Unavailable
from atoll.domain.idmap import IdMap
from atoll.domain.image_metadata import Trigger
from atoll.domain.migration_header import ALL_FEATURES, Control, Criu, FsType, Header, RsyncFeatures
from atoll.domain.migration_header import Snapshot as Told
from atoll.drivers.instance.contract import MachineId
from atoll.host import folders, rsync
from atoll.host.rsync import Tree
from atoll.services import budgets
from atoll.services.instances import copy, restoring
from atoll.services.instances.core import InstanceCore, Loaded, instance_resources
from atoll.services.instances.create import CREATING, InstanceCreator, Request
from atoll.services.instances.devices import DeviceService
from atoll.services.instances.refresh import InstanceRefresher, Steps
from atoll.services.instances.sockets import Sockets
from atoll.services.instances.transfer import Place
from atoll.services.migration import channels, description, source, staging
from atoll.services.migration.channels import Channels, Peer
from atoll.services.migration.staging import Progress
from atoll.services.operations import Operation, OperationRegistry, OperationSpec

_INDEX_SECONDS = 60.0
_LAST_IDMAP = "volatile.last_state.idmap"


@dataclass(frozen=True, slots=True)
class Offer:
    """Where an instance comes from. `peer`: the source's operation; None if the source, or a client between, connects to ours."""

    peer: Peer | None = None
    instance_only: bool = False
    live: bool = False
    refresh: bool = False


class MigrationTarget:
    """The use case."""

    def __init__(
        self,
        core: InstanceCore,
        devices: DeviceService,
        creator: InstanceCreator,
        refresher: InstanceRefresher,
        operations: OperationRegistry,
    ) -> None:
        self._core = core
        self._devices = devices
        self._creator = creator
        self._refresher = refresher
        self._operations = operations

    async def start(self, request: Request, offer: Offer, *, caller: Caller) -> Operation:
        """The operation that makes the instance, or with `refresh` brings the one that is there up to date. Its creator gets the
        secrets of its websockets if the offer names no peer."""
        if offer.live:
            channels.refuse_live()
        if offer.peer is not None:
            offer.peer.check()
        sockets = Sockets(channels.NAMES)
        arrival = Arrival(self._core, self._devices, offer, sockets)
        present = await self._refresher.find_target(request.project, request.name) if offer.refresh else None
        if present is not None:
            return self._refresh(present, arrival, sockets, caller)
        return await self._creator.start(
            _without_host(request),
            _Origin(self._core, arrival),
            caller=caller,
            sockets=sockets if offer.peer is None else None,
        )

    def _refresh(self, target: Loaded, arrival: Arrival, sockets: Sockets, caller: Caller) -> Operation:
        self._refresher.check(target)

        async def work(operation: Operation) -> None:
            async with arrival.linked() as link, self._core.hold(target.machine), link.told():
                await self._refresh_held(target, arrival, operation)
                await link.tell(Control(success=True))
            self._core.tell("instance-updated", target.record, caller=caller)

        record = target.record
        spec = OperationSpec(
            "Refreshing instance", work, project=record.project, resources=instance_resources(record.name), caller=caller
        )
        return self._operations.start(spec if arrival.offer.peer is not None else sockets.declare(spec))

    async def _refresh_held(self, target: Loaded, arrival: Arrival, operation: Operation) -> None:
        loaded, present = await copy.find_whole(self._core, target.record.project, target.record.name)
        self._refresher.check(loaded)
        header = await arrival.hear_offer()
        told = () if arrival.offer.instance_only else header.snapshots
        await arrival.answer(header, description.missing(told, present), refresh=True)
        extra = [] if arrival.offer.instance_only else description.extra(told, present)

        async def write(tx: Transaction) -> None:
            await arrival.write(tx, loaded)

        async def bring() -> None:
            await arrival.receive(loaded, operation)

        async def settle(tx: Transaction) -> None:
            return

        await self._refresher.change(loaded, extra, Steps(write, bring, settle))


class Arrival:
    """One instance on its way, once `linked`: `hear_offer`, `answer`, `write`, `receive`, in that order."""

    def __init__(self, core: InstanceCore, devices: DeviceService, offer: Offer, sockets: Sockets) -> None:
        self.offer = offer
        self._core = core
        self._devices = devices
        self._sockets = sockets
        self._found: Channels | None = None
        self._header = Header()
        self._answer = Header()
        self._backup = InstanceBackup()

    @asynccontextmanager
    async def linked(self) -> AsyncIterator[Channels]:
        """The link, while the block runs."""
        opened: AbstractAsyncContextManager[Channels]
        opened = channels.opened(self.offer.peer) if self.offer.peer is not None else channels.connected(self._sockets)
        async with opened as self._found:
            yield self._found

    @property
    def _link(self) -> Channels:
        assert self._found is not None  # who calls is inside of `linked`
        return self._found

    async def hear_offer(self) -> Header:
        """What the source has. BadRequest unless it is something that can be."""
        self._header = await self._link.hear(Header)
        description.check_offer(self._header)
        return self._header

    async def answer(self, header: Header, wanted: Sequence[Told], *, refresh: bool) -> None:
        """Say which snapshots are to come, and how; then hear the index, if there is one."""
        self._answer = Header(
            fs=FsType.RSYNC,
            criu=header.criu,
            snapshot_names=tuple(each.name for each in wanted),
            snapshots=tuple(wanted),
            rsync_features=ALL_FEATURES.common(header.rsync_features or RsyncFeatures()),
            refresh=refresh,
            index_version=min(description.INDEX_VERSION, header.index_version or 0),
        )
        entries = [description.entry(each) for each in wanted]
        await self._link.tell(self._answer)
        index = await self._hear_index(refresh=refresh) if self._answer.index_version else InstanceBackup()
        described = {each.name: each for each in index.snapshots}
        self._backup = InstanceBackup(
            snapshots=[_described(each, described) for each in entries],
            volume=index.volume,
            volume_snapshots=index.volume_snapshots,
        )

    async def _hear_index(self, *, refresh: bool) -> InstanceBackup:
        files = self._link.files
        try:
            async with asyncio.timeout(_INDEX_SECONDS):
                index = description.parse_index(await source.hear_stream(self._link, description.LARGEST_INDEX))
                await files.send(json.dumps({"StatusCode": 200, "Error": "", "Refresh": refresh}).encode())
                await files.send_end()
        except (ConnectionError, TimeoutError) as error:
            raise Unavailable("The connection to the other server broke") from error
        return index

    async def write(self, tx: Transaction, loaded: Loaded) -> None:
        """Records of the snapshots to come, and the configuration of the volume."""
        await restoring.write_snapshots(self._core, self._devices, tx, loaded, self._backup, phase=CREATING)

    async def receive(self, loaded: Loaded, operation: Operation) -> None:
        """The snapshots that are to come, oldest first, and what the instance is, into a volume that is there."""
        driver = self._core.storage.driver(loaded.pool)
        place = Place(driver, loaded.volume)
        shifted = description.idmap(self._header)
        async with budgets.watched(driver), staging.folder(self._core) as beside:
            for entry in self._backup.snapshots:
                name = f"{loaded.record.name}/{entry.name}"
                await self._receive_state(place, beside, _shift_of(entry, shifted), Progress(operation, name))
                await driver.snapshot(loaded.volume.at(entry.name))
            passes = 2 if self._header.criu == Criu.NONE else 1  # a source that runs sends what has changed meanwhile once more
            for _ in range(passes):
                await self._receive_state(place, beside, shifted, Progress(operation, loaded.record.name))

    async def _receive_state(self, place: Place, beside: Path, shifted: IdMap | None, progress: Progress) -> None:
        how = staging.options(self._answer)
        async with place.driver.open_rootfs(place.volume) as rootfs:
            await rsync.receive(Tree(beside, rootfs), self._link.files, how, progress, shifted=shifted)
        await staging.place_beside(beside, place.driver.data(place.volume))


class _Origin:
    """See `create.Origin`."""

    trigger = Trigger.COPY
    machines: Sequence[MachineId] = ()

    def __init__(self, core: InstanceCore, arrival: Arrival) -> None:
        self._core = core
        self._arrival = arrival

    async def make(self, loaded: Loaded, operation: Operation) -> None:
        arrival = self._arrival
        async with arrival.linked() as link, link.told():
            header = await arrival.hear_offer()
            wanted = () if arrival.offer.instance_only else header.snapshots
            await arrival.answer(header, wanted, refresh=False)
            async with self._core.database.write() as tx:
                await arrival.write(tx, loaded)
            driver = self._core.storage.driver(loaded.pool)
            await driver.create(loaded.volume)
            await arrival.receive(loaded, operation)
            if wanted:
                place = driver.data(loaded.volume.at(wanted[0].name)).parent
                await folders.link_snapshots(self._core.paths, loaded.machine.key, place)
            await link.tell(Control(success=True))

    async def settle(self, tx: Transaction, loaded: Loaded) -> None:
        await copies.settle_snapshots(tx, loaded.record.id)


def _without_host(request: Request) -> Request:
    """Without what the source's server noted for itself. BadRequest for values that cannot be."""
    entry = InstanceEntry(config=dict(request.config))
    return dataclasses.replace(request, config={**restoring.own_config(entry), **restoring.kept_volatile(entry)})


def _described(entry: InstanceEntry, descriptions: Mapping[str, InstanceEntry]) -> InstanceEntry:
    """With what the index alone says of it: its description, and the fraction of the second when it was taken."""
    told = descriptions.get(entry.name, entry)
    same = description.seconds(told.created_at) == description.seconds(entry.created_at)
    return msgspec.structs.replace(entry, description=told.description, created_at=told.created_at if same else entry.created_at)


def _shift_of(entry: InstanceEntry, current: IdMap | None) -> IdMap | None:
    """A snapshot was taken when the ids on its server's disk were perhaps others; its own record knows."""
    return restoring.shift_of(entry) if entry.config.get(_LAST_IDMAP) else current
