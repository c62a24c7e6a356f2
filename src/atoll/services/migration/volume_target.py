"""The target's side for custom volumes: one that comes from another server, or one that is brought up to date from there.

The other server chooses nothing here, see `target`: pool, project, name and configuration are the request's. A kill leaves a row
with phase "creating", which `VolumeService.repair` removes with all that is there, or "refreshing", of which
`VolumeCopier.repair` says that it is to be done again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from atoll.db.engine import Transaction
from atoll.domain import content_types, names
from atoll.domain.caller import Caller
from atoll.domain.entities import StorageVolume
from atoll.domain.errors import BadRequest, Conflict
from atoll.domain.idmap import IdMap
from atoll.domain.migration_header import Control, Header
from atoll.domain.migration_header import Snapshot as Told
from atoll.domain.volume_backup_metadata import CustomEntry, VolumeBackup
from atoll.drivers.storage.contract import VolumeId, VolumeKind
from atoll.services import budgets, volume_entries
from atoll.services.instances.sockets import Sockets
from atoll.services.instances.transfer import Place
from atoll.services.migration import channels, description, handshake, staging, volume_description
from atoll.services.migration.channels import Channels, Peer
from atoll.services.migration.transport import Arrival, State, Transport, Ways
from atoll.services.operations import Operation, OperationRegistry, OperationSpec
from atoll.services.storage import StorageService
from atoll.services.volume_contents import volume_id
from atoll.services.volume_copy import Target, VolumeCopier
from atoll.services.volume_urls import volume_url
from atoll.services.volume_users import VolumeUsers
from atoll.services.volumes import CUSTOM, NewVolume, VolumeService


@dataclass(frozen=True, slots=True)
class VolumeOffer:
    """Where a volume comes from, see `target.Offer`."""

    peer: Peer | None = None
    volume_only: bool = False
    refresh: bool = False


class VolumeMigrationTarget:
    """The use case."""

    def __init__(
        self,
        storage: StorageService,
        volumes: VolumeService,
        users: VolumeUsers,
        copier: VolumeCopier,
        ways: Ways,
        operations: OperationRegistry,
    ) -> None:
        self._storage = storage
        self._volumes = volumes
        self._users = users
        self._copier = copier
        self._ways = ways
        self._operations = operations

    async def start(self, target: Target, offer: VolumeOffer, *, caller: Caller) -> Operation:
        """The operation that makes the volume, or with `refresh` brings the one that is there up to date. Its creator gets the
        secrets of its websockets if the offer names no peer."""
        new = await self._plan(target)
        shifted = volume_description.shift_of(target.config or {})
        is_disk = content_types.parse(new.content_type).is_disk
        if offer.peer is not None:
            offer.peer.check()
        present = await self._copier.find_target(target)
        if present is not None:
            self._check(present, new, offer)
        sockets = Sockets(channels.NAMES)

        async def work(operation: Operation) -> None:
            async with handshake.linked(offer.peer, sockets) as link, link.told():
                incoming = Incoming(link, self._storage, self._ways, operation, shifted, is_disk=is_disk)
                await incoming.hear_offer(volume_only=offer.volume_only)
                if present is None:
                    await self._make(new, incoming, caller=caller)
                else:
                    await self._refresh(present, incoming, volume_only=offer.volume_only, caller=caller)

        what = "Copying storage volume" if present is None else "Refreshing storage volume"
        resources = {"storage_volumes": [volume_url(target.pool, CUSTOM, target.name, target.project)]}
        spec = OperationSpec(what, work, project=target.project, resources=resources, caller=caller)
        return self._operations.start(spec if offer.peer is not None else sockets.declare(spec))

    async def _plan(self, target: Target) -> NewVolume:
        """The volume as the request wants it, if it can be."""
        names.volume(target.name)
        kind = content_types.parse(target.content_type)
        await self._storage.find(target.pool)
        entry = CustomEntry(config=dict(target.config or {}))
        config = volume_entries.own_config(self._storage.driver(target.pool), entry, kind)
        return NewVolume(target.pool, target.project, target.name, target.description, config, kind)

    def _check(self, present: StorageVolume, new: NewVolume, offer: VolumeOffer) -> None:
        if not offer.refresh:
            raise Conflict("Volume by that name already exists")
        if present.content_type != new.content_type:
            raise BadRequest("Volume content types do not match")
        self._volumes.refuse_daemons(present, "cannot be refreshed")

    async def _make(self, new: NewVolume, incoming: Incoming, *, caller: Caller) -> None:
        owner = await self._volumes.owner(new.project)
        await incoming.answer(incoming.told, new.pool, VolumeId(VolumeKind.CUSTOM, owner, new.name))
        async with self._volumes.creating(new, caller=caller, rest=incoming.write) as volume:
            await incoming.receive()
            await self._volumes.apply_size(volume)
        await incoming.confirm()  # not before: whoever moves a volume deletes the original upon it

    async def _refresh(self, present: StorageVolume, incoming: Incoming, *, volume_only: bool, caller: Caller) -> None:
        async with handshake.soon(self._at_rest(present)) as held:
            there = await self._volumes.snapshots(held)
            missing = volume_description.missing(incoming.told, there)
            extra = [] if volume_only else volume_description.extra(incoming.told, there)
            kept = volume_description.same(incoming.told, there)
            await incoming.answer(missing, held.pool, volume_id(held), kept=kept)

            async def write(tx: Transaction) -> None:
                await incoming.write(tx, held)

            await self._copier.change(held, extra, write, incoming.receive)
            await incoming.confirm()
        self._volumes.tell("storage-volume-updated", held, caller=caller)

    @asynccontextmanager
    async def _at_rest(self, volume: StorageVolume) -> AsyncIterator[StorageVolume]:
        """Nothing else happens to the volume, nor to those who have it."""
        async with self._volumes.hold(volume) as (held,), self._users.at_rest(held):
            self._volumes.refuse_daemons(held, "cannot be refreshed")  # as it may have become since the request
            yield held


class Incoming:
    """One volume on its way: `hear_offer`, `answer`, `write`, `receive`, `confirm`, in that order. `shifted`: what its files' ids
    are shifted by, as far as the request knows."""

    def __init__(
        self,
        link: Channels,
        storage: StorageService,
        ways: Ways,
        operation: Operation,
        shifted: IdMap | None,
        *,
        is_disk: bool,
    ) -> None:
        self._link = link
        self._is_disk = is_disk
        self._storage = storage
        self._ways = ways
        self._operation = operation
        self._shifted = shifted
        self._header = Header()
        self._coming: tuple[Arrival, Transport] | None = None
        self._snapshots: list[CustomEntry] = []
        self.told: Sequence[Told] = ()
        """The snapshots that the source has, as far as they are wanted at all."""

    async def hear_offer(self, *, volume_only: bool) -> None:
        """BadRequest unless it is something that can be."""
        self._header = await self._link.hear(Header)
        description.check_offer(self._header)
        self.told = () if volume_only else self._header.snapshots

    async def answer(self, wanted: Sequence[Told], pool: str, target: VolumeId, *, kept: Sequence[str] | None = None) -> None:
        """Say which snapshots are to come to that pool, and how; then hear what they are. `kept`: of a volume that is there, and
        is to be refreshed, the snapshots that stay."""
        arrival = Arrival(
            pool,
            Place(self._storage.driver(pool), target),
            _states(volume_description.entries(wanted, VolumeBackup())),
            self._shifted,
            kept=kept,
            project=target.project,
            is_disk=self._is_disk,
        )
        way = await self._ways.answer(self._header, arrival)
        read = volume_description.parse_index
        answer, index = await handshake.take(self._link, self._header, wanted, way, read, refresh=kept is not None)
        self._snapshots = volume_description.entries(wanted, index)
        shifted = self._shifted if index.volume is None else volume_description.shift_of(index.volume.config)
        arrival = dataclasses.replace(arrival, snapshots=_states(self._snapshots), shifted=shifted)
        self._coming = arrival, self._ways.agreed(self._header, answer)

    async def write(self, tx: Transaction, volume: StorageVolume) -> None:
        """Records of the snapshots to come."""
        await volume_entries.write_snapshots(tx, self._storage.driver(volume.pool), volume, self._snapshots)

    async def receive(self) -> None:
        """The snapshots that are to come, oldest first, and what the volume is."""
        assert self._coming is not None  # `answer` came before
        arrival, transport = self._coming
        async with budgets.watched(arrival.target.driver):
            await transport.receive(arrival, self._link.files, lambda state: staging.progress(self._operation, state))

    async def confirm(self) -> None:
        """Tell the source that all is there, and stays."""
        await self._link.tell(Control(success=True))


def _states(entries: Sequence[CustomEntry]) -> list[State]:
    return [State(each.name, volume_description.shift_of(each.config)) for each in entries]
