"""Files one by one: rsync, with the options that both sides know."""

from __future__ import annotations

import dataclasses

from atoll.domain.idmap import IdMap
from atoll.domain.migration_header import FsType, Header
from atoll.domain.paths import Paths
from atoll.drivers.storage.contract import VolumeKind
from atoll.host import rsync
from atoll.host.rsync import Options, Report, Tree
from atoll.services.instances.sockets import Socket
from atoll.services.instances.transfer import Place
from atoll.services.migration import rsync_settings, staging
from atoll.services.migration.transport import Arrival, Departure, Origin, Reports
from atoll.services.storage import StorageService


class ByRsync:
    """The way that LXD and Atoll always have; see `transport.Way`."""

    def __init__(self, storage: StorageService, paths: Paths) -> None:
        self._storage = storage
        self._paths = paths

    async def offer(self, header: Header, origin: Origin) -> Header:
        """See `transport.Way`."""
        settings = await rsync_settings.of_pool(self._storage, origin.pool)
        return dataclasses.replace(header, fs=FsType.RSYNC, rsync_features=settings.features)

    async def answer(self, offer: Header, arrival: Arrival) -> Header | None:
        """Every source can do this, but for an LXD server with a disk: see `by_blocks`."""
        if offer.fs == FsType.BLOCK_AND_RSYNC and not (offer.rsync_features is not None and offer.rsync_features.whole):
            return None
        settings = await rsync_settings.of_pool(self._storage, arrival.pool)
        return Header(fs=FsType.RSYNC, rsync_features=settings.common(offer))

    def agreed(self, offer: Header, answer: Header) -> RsyncTransport | None:
        """See `transport.Way`."""
        return RsyncTransport(self._storage, self._paths, answer) if answer.fs == FsType.RSYNC else None


class RsyncTransport:
    """See `transport.Transport`. Each state is brought over the one before it, with a snapshot in between."""

    def __init__(self, storage: StorageService, paths: Paths, answer: Header) -> None:
        self._storage = storage
        self._paths = paths
        self._answer = answer

    async def send(self, departure: Departure, socket: Socket, reports: Reports) -> None:
        """See `transport.Transport`."""
        how = (await rsync_settings.of_pool(self._storage, departure.origin.pool)).options(self._answer)
        for state in departure.states:
            report = reports(state.volume)
            async with state.driver.open_rootfs(state.volume) as rootfs:
                if state.volume.kind is VolumeKind.CUSTOM:
                    await rsync.send(Tree(rootfs), socket, how, report)
                    continue
                async with staging.folder(self._paths) as beside:
                    await staging.copy_beside(state, beside)
                    await rsync.send(Tree(beside, rootfs), socket, how, report)

    async def receive(self, arrival: Arrival, socket: Socket, reports: Reports) -> None:
        """See `transport.Transport`."""
        how = (await rsync_settings.of_pool(self._storage, arrival.pool)).options(self._answer)
        target = arrival.target
        if arrival.kept is None:
            await target.driver.create(target.volume)
        for state in arrival.snapshots:
            named = target.at(state.name)
            await self._receive(target, socket, how, reports(named.volume), state.shifted)
            await target.driver.snapshot(named.volume)
        for _ in range(arrival.passes):
            await self._receive(target, socket, how, reports(target.volume), arrival.shifted)

    async def _receive(self, target: Place, socket: Socket, how: Options, report: Report, shifted: IdMap | None) -> None:
        async with target.driver.open_rootfs(target.volume) as rootfs:
            if target.volume.kind is VolumeKind.CUSTOM:
                await rsync.receive(Tree(rootfs), socket, how, report, shifted=shifted)
                return
            async with staging.folder(self._paths) as beside:
                await rsync.receive(Tree(beside, rootfs), socket, how, report, shifted=shifted)
                await staging.place_beside(beside, target.driver.data(target.volume))
