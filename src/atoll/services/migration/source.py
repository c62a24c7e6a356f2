"""The source's side: an instance, or one snapshot of it, is offered and sent. Nothing of it changes.

Until the target has said that all is there, an instance that does not run is held. Of a running one a snapshot is sent that is
there for this alone: what arrives is of one moment, so no second pass is needed as LXD has it, and the instance is free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from atoll.domain.caller import Caller
from atoll.domain.entities import Snapshot
from atoll.domain.migration_header import Header
from atoll.services.instances import backup_index, backup_subject, copy
from atoll.services.instances.copy import HeldSource, Source
from atoll.services.instances.core import InstanceCore, Loaded, instance_resources
from atoll.services.instances.sockets import Sockets
from atoll.services.instances.transfer import Place
from atoll.services.migration import channels, description, handshake, staging
from atoll.services.migration.channels import Channels, Peer
from atoll.services.migration.transport import Departure, Origin, Ways
from atoll.services.operations import Operation, OperationRegistry, OperationSpec

_BASE_IMAGE = "volatile.base_image"


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be sent. `target`: where to, if we are the one who connects; else the target, or a client between, does."""

    source: Source
    live: bool = False
    target: Peer | None = None


class MigrationSource:
    """The use case."""

    def __init__(self, core: InstanceCore, ways: Ways, operations: OperationRegistry) -> None:
        self._core = core
        self._ways = ways
        self._operations = operations

    async def start(self, order: Order, *, caller: Caller) -> Operation:
        """The operation that sends it, whose creator gets the secrets of its websockets if there is no target in the order."""
        wanted = order.source
        if order.live:
            channels.refuse_live()
        if order.target is not None:
            order.target.check()
        if wanted.snapshot:
            await self._core.load_snapshot(wanted.project, wanted.name, wanted.snapshot)
        else:
            await self._core.load(wanted.project, wanted.name)
        sockets = Sockets(channels.NAMES)

        async def work(operation: Operation) -> None:
            async with handshake.linked(order.target, sockets) as link, link.told():
                async with copy.unchanging(self._core, wanted) as subject:
                    await self._send(wanted, subject, link, operation)

        spec = OperationSpec(
            "Migrating instance",
            work,
            project=wanted.project,
            resources=instance_resources(wanted.name),
            caller=caller,
            cancellable=True,
        )
        return self._operations.start(spec if order.target is not None else sockets.declare(spec))

    async def _send(self, wanted: Source, subject: HeldSource, link: Channels, operation: Operation) -> None:
        loaded = subject.loaded
        driver = self._core.storage.driver(loaded.pool)
        origin = Origin(loaded.pool, Place(driver, loaded.volume), loaded.record.config.get(_BASE_IMAGE, ""))

        async def index(chosen: Sequence[str]) -> bytes:
            return await self._index(loaded, wanted, chosen)

        offer = await self._ways.offer(_offer(subject.snapshots), origin)
        answer, chosen = await handshake.offer(link, offer, index)
        transport = self._ways.agreed(offer, answer)
        departure = Departure(origin, Place(driver, subject.content), offer.snapshot_names, chosen)
        await transport.send(departure, link.files, lambda volume: staging.progress(operation, volume))
        await link.hear_success()

    async def _index(self, loaded: Loaded, wanted: Source, chosen: Sequence[str]) -> bytes:
        subject = await backup_subject.load(self._core, loaded, snapshots=[*chosen, wanted.snapshot])
        tree = backup_index.tree(subject)
        if wanted.snapshot:  # what the target's volume gets is that of the snapshot
            (at,) = tree["volume_snapshots"]
            tree["volume"] = {**tree["volume"], "config": at["config"], "description": at["description"]}
            tree |= {"snapshots": [], "volume_snapshots": []}
        return description.index(tree)


def _offer(snapshots: Sequence[Snapshot]) -> Header:
    """Files have plain ids here: there is no map of them."""
    return Header(
        snapshot_names=tuple(each.name for each in snapshots),
        snapshots=tuple(description.snapshot(each) for each in snapshots),
        predump=False,
        index_version=handshake.INDEX_VERSION,
    )
