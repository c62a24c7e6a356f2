"""The source's side for custom volumes: a volume, or one snapshot of it, is offered and sent. Nothing of it changes.

It is held until the target has said that all is there. Of a volume that a running instance has, a snapshot is sent that is there
for this alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from atoll.domain.caller import Caller
from atoll.domain.entities import StorageVolume, VolumeSnapshot
from atoll.services.instances.sockets import Sockets
from atoll.services.instances.transfer import Place
from atoll.services.migration import channels, handshake, staging, volume_description
from atoll.services.migration.channels import Channels, Peer
from atoll.services.migration.transport import Departure, Origin, Ways
from atoll.services.operations import Operation, OperationRegistry, OperationSpec
from atoll.services.storage import StorageService
from atoll.services.volume_contents import volume_id
from atoll.services.volume_copy import VolumeCopier
from atoll.services.volume_urls import volume_url
from atoll.services.volumes import CUSTOM, VolumeService


@dataclass(frozen=True, slots=True)
class VolumeOrder:
    """What is to be sent: a volume, with its snapshots unless `volume_only`, or one snapshot of it. `target`: where to, if we are
    the one who connects; else the target, or a client between, does. `asking`: the project that asks for it."""

    volume: StorageVolume
    asking: str
    snapshot: str = ""
    volume_only: bool = False
    target: Peer | None = None


class VolumeMigrationSource:
    """The use case."""

    def __init__(
        self,
        storage: StorageService,
        volumes: VolumeService,
        copier: VolumeCopier,
        ways: Ways,
        operations: OperationRegistry,
    ) -> None:
        self._storage = storage
        self._volumes = volumes
        self._ways = ways
        self._copier = copier
        self._operations = operations

    async def start(self, order: VolumeOrder, *, caller: Caller) -> Operation:
        """The operation that sends it, whose creator gets the secrets of its websockets if there is no target in the order."""
        volume = order.volume
        if order.target is not None:
            order.target.check()
        if order.snapshot:
            await self._volumes.find_snapshot(volume, order.snapshot)
        sockets = Sockets(channels.NAMES)

        async def work(operation: Operation) -> None:
            async with handshake.linked(order.target, sockets) as link, link.told(), self._volumes.hold(volume) as (held,):
                await self._send(dataclasses.replace(order, volume=held), link, operation)

        spec = OperationSpec(
            "Migrating storage volume",
            work,
            project=order.asking,
            resources={"storage_volumes": [volume_url(volume.pool, CUSTOM, volume.name, volume.project)]},
            caller=caller,
            cancellable=True,
        )
        return self._operations.start(spec if order.target is not None else sockets.declare(spec))

    async def _send(self, order: VolumeOrder, link: Channels, operation: Operation) -> None:
        volume = order.volume
        described, snapshots = await self._find(order)
        driver = self._storage.driver(volume.pool)
        origin = Origin(volume.pool, Place(driver, volume_id(volume)), is_disk=volume.content.is_disk)

        async def index(chosen: Sequence[str]) -> bytes:
            return volume_description.index(described, [each for each in snapshots if each.name in chosen])

        offer = await self._ways.offer(volume_description.offer(snapshots), origin)
        answer, chosen = await handshake.offer(link, offer, index)
        transport = self._ways.agreed(offer, answer)
        async with self._copier.content(volume, order.snapshot) as last:
            departure = Departure(origin, Place(driver, last), offer.snapshot_names, chosen)
            await transport.send(departure, link.files, lambda state: staging.progress(operation, state))
            await link.hear_success()

    async def _find(self, order: VolumeOrder) -> tuple[StorageVolume, list[VolumeSnapshot]]:
        """What a copy is like, and the snapshots that it gets."""
        volume = order.volume
        if not order.snapshot:
            return volume, [] if order.volume_only else await self._volumes.snapshots(volume)
        found = await self._volumes.find_snapshot(volume, order.snapshot)
        return dataclasses.replace(volume, config=found.config, description=found.description), []
