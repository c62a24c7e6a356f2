"""The target's side: an instance that comes from another server, or one that is brought up to date from there.

The other server chooses nothing here: name, project and configuration are the request's, the pool that of its root disk, names of
snapshots are validated, and their configuration passes the gate of every new instance. Files are received in a jail, and owners
are those of the instance, whatever ids the source's host has for them.

A kill leaves a row with phase "creating", or "refreshing", as those of local copies: `InstanceCreator.repair` and
`InstanceRefresher.repair` know what to do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec

from atoll.db import instance_copies as copies
from atoll.db.engine import Transaction
from atoll.domain.backup_metadata import InstanceBackup, InstanceEntry
from atoll.domain.caller import Caller
from atoll.domain.idmap import IdMap
from atoll.domain.image_metadata import Trigger
from atoll.domain.migration_header import Control, Criu, Header
from atoll.domain.migration_header import Snapshot as Told
from atoll.drivers.instance.contract import MachineId
from atoll.host import folders
from atoll.services import budgets
from atoll.services.instances import copy, restoring
from atoll.services.instances.core import InstanceCore, Loaded, instance_resources
from atoll.services.instances.create import CREATING, InstanceCreator, Request
from atoll.services.instances.devices import DeviceService
from atoll.services.instances.refresh import InstanceRefresher, Steps
from atoll.services.instances.sockets import Sockets
from atoll.services.instances.transfer import Place
from atoll.services.migration import channels, description, handshake, staging
from atoll.services.migration.channels import Channels, Peer
from atoll.services.migration.transport import Arrival, State, Transport, Ways
from atoll.services.operations import Operation, OperationRegistry, OperationSpec

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
        ways: Ways,
        devices: DeviceService,
        creator: InstanceCreator,
        refresher: InstanceRefresher,
        operations: OperationRegistry,
    ) -> None:
        self._core = core
        self._ways = ways
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
        incoming = Incoming(self._core, self._ways, self._devices, offer, sockets)
        present = await self._refresher.find_target(request.project, request.name) if offer.refresh else None
        if present is not None:
            return self._refresh(present, incoming, sockets, caller)
        return await self._creator.start(
            _without_host(request),
            _Origin(self._core, incoming),
            caller=caller,
            sockets=sockets if offer.peer is None else None,
            around=incoming.to_the_end,
        )

    def _refresh(self, target: Loaded, incoming: Incoming, sockets: Sockets, caller: Caller) -> Operation:
        self._refresher.check(target)

        async def work(operation: Operation) -> None:
            async with incoming.linked() as link, link.told():
                header = await incoming.hear_offer()
                async with handshake.soon(self._core.hold(target.machine)):
                    await self._refresh_held(target, incoming, header, operation)
                    await link.tell(Control(success=True))
            self._core.tell("instance-updated", target.record, caller=caller)

        record = target.record
        spec = OperationSpec(
            "Refreshing instance", work, project=record.project, resources=instance_resources(record.name), caller=caller
        )
        return self._operations.start(spec if incoming.offer.peer is not None else sockets.declare(spec))

    async def _refresh_held(self, target: Loaded, incoming: Incoming, header: Header, operation: Operation) -> None:
        loaded, present = await copy.find_whole(self._core, target.record.project, target.record.name)
        self._refresher.check(loaded)
        told = () if incoming.offer.instance_only else header.snapshots
        kept = [each.name for each in present if each not in description.extra(header.snapshots, present)]
        await incoming.answer(description.missing(told, present), loaded, kept=kept)
        extra = [] if incoming.offer.instance_only else description.extra(told, present)

        async def write(tx: Transaction) -> None:
            await incoming.write(tx, loaded)

        async def bring() -> None:
            await incoming.receive(operation)

        async def settle(tx: Transaction) -> None:
            return

        await self._refresher.change(loaded, extra, Steps(write, bring, settle))


class Incoming:
    """One instance that arrives. Within `linked`: `hear_offer`, `answer`, `write`, `receive`, in that order."""

    def __init__(self, core: InstanceCore, ways: Ways, devices: DeviceService, offer: Offer, sockets: Sockets) -> None:
        self.offer = offer
        self._core = core
        self._ways = ways
        self._devices = devices
        self._sockets = sockets
        self._found: Channels | None = None
        self._header = Header()
        self._coming: tuple[Arrival, Transport] | None = None
        self._backup = InstanceBackup()

    @asynccontextmanager
    async def linked(self) -> AsyncIterator[Channels]:
        """The link, while the block runs."""
        async with handshake.linked(self.offer.peer, self._sockets) as self._found:
            yield self._found

    @asynccontextmanager
    async def to_the_end(self) -> AsyncIterator[None]:
        """The block runs `linked`; the source hears of its failure, or that all is here and stays: upon that, whoever moves an
        instance deletes the original."""
        async with self.linked() as link, link.told():
            yield
            await link.tell(Control(success=True))

    @property
    def _link(self) -> Channels:
        assert self._found is not None  # whoever calls is inside of `linked`
        return self._found

    async def hear_offer(self) -> Header:
        """What the source has. BadRequest unless it is something that can be."""
        self._header = await self._link.hear(Header)
        description.check_offer(self._header)
        return self._header

    async def answer(self, wanted: Sequence[Told], loaded: Loaded, *, kept: Sequence[str] | None = None) -> None:
        """Say which snapshots are to come, and how; then hear the index, if there is one. `kept`: of an instance that is there,
        and is to be refreshed, the snapshots that stay."""
        entries = [description.entry(each) for each in wanted]
        shifted = description.idmap(self._header)
        arrival = Arrival(
            loaded.pool,
            Place(self._core.storage.driver(loaded.pool), loaded.volume),
            [State(each.name, _shift_of(each, shifted)) for each in entries],
            shifted,
            kept=kept,
            passes=2 if self._header.criu == Criu.NONE else 1,  # a source that runs sends what has changed meanwhile once more
            project=loaded.record.project,
        )
        way = await self._ways.answer(self._header, arrival)
        answer, index = await handshake.take(
            self._link, self._header, wanted, way, description.parse_index, refresh=kept is not None
        )
        described = {each.name: each for each in index.snapshots}
        self._backup = InstanceBackup(
            snapshots=[_described(each, described) for each in entries],
            volume=index.volume,
            volume_snapshots=index.volume_snapshots,
        )
        self._coming = arrival, self._ways.agreed(self._header, answer)

    async def write(self, tx: Transaction, loaded: Loaded) -> None:
        """Records of the snapshots to come, and the configuration of the volume."""
        await restoring.write_snapshots(self._core, self._devices, tx, loaded, self._backup, phase=CREATING)

    async def receive(self, operation: Operation) -> None:
        """The snapshots that are to come, oldest first, and what the instance is."""
        assert self._coming is not None  # `answer` came before
        arrival, transport = self._coming
        async with budgets.watched(arrival.target.driver):
            await transport.receive(arrival, self._link.files, lambda volume: staging.progress(operation, volume))


class _Origin:
    """See `create.Origin`."""

    trigger = Trigger.COPY
    machines: Sequence[MachineId] = ()

    def __init__(self, core: InstanceCore, incoming: Incoming) -> None:
        self._core = core
        self._incoming = incoming

    async def make(self, loaded: Loaded, operation: Operation) -> None:
        incoming = self._incoming
        header = await incoming.hear_offer()
        wanted = () if incoming.offer.instance_only else header.snapshots
        await incoming.answer(wanted, loaded)
        async with self._core.database.write() as tx:
            await incoming.write(tx, loaded)
        await incoming.receive(operation)
        if wanted:
            place = self._core.storage.driver(loaded.pool).data(loaded.volume.at(wanted[0].name)).parent
            await folders.link_snapshots(self._core.paths, loaded.machine.key, place)

    async def settle(self, tx: Transaction, loaded: Loaded) -> Mapping[str, str]:
        await copies.settle_snapshots(tx, loaded.record.id)
        return {}


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
