"""The blocks of a disk one after the other, as LXD sends volumes that are disks.

Between two Atoll servers a disk goes by rsync, as the file that it is here: what is empty, or the same as before, takes no time.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from atoll.domain.errors import BadRequest
from atoll.domain.migration_header import FsType, Header
from atoll.host import disk_image
from atoll.host.pace import Pace
from atoll.host.rsync import Report
from atoll.host.threads import in_thread
from atoll.services.instances.sockets import Socket
from atoll.services.instances.transfer import Place
from atoll.services.migration import rsync_settings
from atoll.services.migration.files import Files
from atoll.services.migration.transport import Arrival, Departure, Origin, Reports
from atoll.services.storage import StorageService

_LARGEST = 1 << 44
"""Bytes of a disk of which its source does not say how large it is."""


class ByBlocks:
    """See `transport.Way`."""

    def __init__(self, storage: StorageService) -> None:
        self._storage = storage

    async def offer(self, header: Header, origin: Origin) -> Header:
        """See `transport.Way`."""
        if not origin.is_disk:
            return header
        settings = await rsync_settings.of_pool(self._storage, origin.pool)
        async with origin.volume.driver.open_rootfs(origin.volume.volume) as data:
            size = (await in_thread(disk_image.measure, data)).size
        return dataclasses.replace(header, fs=FsType.BLOCK_AND_RSYNC, rsync_features=settings.features, volume_size=size)

    async def answer(self, offer: Header, arrival: Arrival) -> Header | None:
        """None unless the volume is a disk, and its source an LXD server: between Atoll servers disks go by rsync."""
        if not arrival.is_disk or _is_ours(offer):
            return None
        settings = await rsync_settings.of_pool(self._storage, arrival.pool)
        return Header(fs=FsType.BLOCK_AND_RSYNC, rsync_features=settings.common(offer))

    def agreed(self, offer: Header, answer: Header) -> BlockTransport | None:
        """See `transport.Way`. Our offers have a size if they are of a disk; LXD's may be of one whatever they say."""
        if answer.fs != FsType.BLOCK_AND_RSYNC or (_is_ours(offer) and not offer.volume_size):
            return None
        return BlockTransport(self._storage, offer.volume_size or _LARGEST)


def _is_ours(offer: Header) -> bool:
    """Whether it is Atoll's."""
    return bool(offer.rsync_features is not None and offer.rsync_features.whole)


class BlockTransport:
    """See `transport.Transport`. Of no state comes more than `largest` bytes."""

    def __init__(self, storage: StorageService, largest: int) -> None:
        self._storage = storage
        self._largest = largest

    async def send(self, departure: Departure, files: Socket, reports: Reports) -> None:
        """See `transport.Transport`."""
        link, pace = Files(files), await self._pace(departure.origin.pool)
        for state in departure.states:
            report = reports(state.volume)
            async with _opened(state, os.O_RDONLY) as image:
                position = 0
                while data := await in_thread(os.pread, image, disk_image.PIECE, position):
                    await pace.take(len(data))
                    await link.send(data)
                    report(len(data))
                    position += len(data)
            await link.end()

    async def receive(self, arrival: Arrival, files: Socket, reports: Reports) -> None:
        """See `transport.Transport`."""
        link, pace, target = Files(files), await self._pace(arrival.pool), arrival.target

        async def fill(data: Path) -> None:
            await in_thread(disk_image.make, data, 0)

        if arrival.kept is None:
            await target.driver.create(target.volume, fill)
        for state in arrival.snapshots:
            named = target.at(state.name)
            await self._receive(target, link, pace, reports(named.volume))
            await target.driver.snapshot(named.volume)
        await self._receive(target, link, pace, reports(target.volume))

    async def _receive(self, target: Place, link: Files, pace: Pace, report: Report) -> None:
        """Zeros take no space, and what is the same as in the state before is not written again."""
        position, rest = 0, bytearray()
        async with _opened(target, os.O_RDWR) as image:
            async for data in link.chunks(report):
                await pace.take(len(data))
                rest += data
                if position + len(rest) > self._largest:
                    raise BadRequest("The other server sends more than it said that the disk has")
                while len(rest) >= disk_image.PIECE:
                    await in_thread(disk_image.write, image, position, bytes(rest[: disk_image.PIECE]))
                    position += disk_image.PIECE
                    del rest[: disk_image.PIECE]
            await in_thread(disk_image.write, image, position, bytes(rest))
            await in_thread(os.ftruncate, image, position + len(rest))

    async def _pace(self, pool: str) -> Pace:
        return Pace((await rsync_settings.of_pool(self._storage, pool)).rate)


@asynccontextmanager
async def _opened(place: Place, flags: int) -> AsyncIterator[int]:
    """A descriptor of the disk there."""
    async with place.driver.open_rootfs(place.volume) as data:
        with ExitStack() as stack:
            yield await in_thread(stack.enter_context, disk_image.opened(data, flags=flags))
