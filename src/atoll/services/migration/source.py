"""The source's side: an instance, or one snapshot of it, is offered and sent. Nothing of it changes.

Its lock is held until the target has said that all is there. Of a running instance a snapshot is sent that is there for this
alone: what arrives is of one moment, so no second pass is needed as LXD has it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from atoll import config as keys
from atoll.domain.caller import Caller
from atoll.domain.entities import Snapshot
from atoll.domain.errors import BadRequest, Unavailable
from atoll.domain.migration_header import ALL_FEATURES, FsType, Header
from atoll.host.rsync import Options
from atoll.services.instances import backup_index, backup_subject, copy
from atoll.services.instances.copy import Source
from atoll.services.instances.core import InstanceCore, Loaded, instance_resources
from atoll.services.instances.sockets import Sockets
from atoll.services.instances.transfer import Place
from atoll.services.migration import channels, description, staging
from atoll.services.migration.channels import Channels, Peer
from atoll.services.migration.staging import Progress
from atoll.services.operations import Operation, OperationRegistry, OperationSpec
from atoll.services.storage import StorageService

_LARGEST_ANSWER = 64 << 10
_ANSWER_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be sent. `target`: where to, if we are the one who connects; else the target, or a client between, does."""

    source: Source
    live: bool = False
    target: Peer | None = None


class MigrationSource:
    """The use case."""

    def __init__(self, core: InstanceCore, operations: OperationRegistry) -> None:
        self._core = core
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
            async with _link(order, sockets) as link, self._core.hold(wanted.machine), link.told():
                await self._send(order, link, operation)

        spec = OperationSpec(
            "Migrating instance",
            work,
            project=wanted.project,
            resources=instance_resources(wanted.name),
            caller=caller,
            cancellable=True,
        )
        return self._operations.start(spec if order.target is not None else sockets.declare(spec))

    async def _send(self, order: Order, link: Channels, operation: Operation) -> None:
        wanted = order.source
        loaded, snapshots = await self._find(wanted)
        offer = await self._offer(loaded, snapshots)
        await link.tell(offer)
        answer = await link.hear(Header)
        chosen = _chosen(offer, answer)
        if answer.index_version:
            await self._send_index(loaded, wanted, chosen, link)
        how = staging.options(answer)
        async with copy.content(self._core, loaded, wanted, pool="") as last, staging.folder(self._core) as beside:
            for state in copy.states_of(self._core, loaded, chosen, last):
                await self._send_state(state, beside, link, how, operation)
            await link.hear_success()

    async def _find(self, wanted: Source) -> tuple[Loaded, list[Snapshot]]:
        if wanted.snapshot:
            loaded, _ = await self._core.load_snapshot(wanted.project, wanted.name, wanted.snapshot)
            return loaded, []
        loaded, snapshots = await copy.find_whole(self._core, wanted.project, wanted.name)
        return loaded, [] if wanted.instance_only else snapshots

    async def _offer(self, loaded: Loaded, snapshots: Sequence[Snapshot]) -> Header:
        """Files have plain ids here: there is no map of them."""
        compress = await _compresses(self._core.storage, loaded.pool)
        return Header(
            fs=FsType.RSYNC,
            snapshot_names=tuple(each.name for each in snapshots),
            snapshots=tuple(description.snapshot(each) for each in snapshots),
            predump=False,
            rsync_features=dataclasses.replace(ALL_FEATURES, compress=compress),
            index_version=description.INDEX_VERSION,
        )

    async def _send_index(self, loaded: Loaded, wanted: Source, chosen: Sequence[str], link: Channels) -> None:
        subject = await backup_subject.load(self._core, loaded, snapshots=[*chosen, wanted.snapshot])
        tree = backup_index.tree(subject)
        if wanted.snapshot:  # what the target's volume gets is that of the snapshot
            (at,) = tree["volume_snapshots"]
            tree["volume"] = {**tree["volume"], "config": at["config"], "description": at["description"]}
            tree |= {"snapshots": [], "volume_snapshots": []}
        try:
            await link.files.send(description.index(tree))
            await link.files.send_end()
            async with asyncio.timeout(_ANSWER_SECONDS):
                answer = await hear_stream(link, _LARGEST_ANSWER)
        except (ConnectionError, TimeoutError) as error:
            raise Unavailable("The connection to the other server broke") from error
        _check_answer(answer)

    async def _send_state(self, state: Place, beside: Path, link: Channels, how: Options, operation: Operation) -> None:
        name = state.volume.name + (f"/{state.volume.snapshot}" if state.volume.snapshot else "")
        await staging.send(state, beside, link.files, how, Progress(operation, name))


def _link(order: Order, sockets: Sockets) -> AbstractAsyncContextManager[Channels]:
    return channels.opened(order.target) if order.target is not None else channels.connected(sockets)


def _chosen(offer: Header, answer: Header) -> list[str]:
    """The snapshots that the target wants: all, or those that it lacks. BadRequest for others, or for another transport."""
    if answer.fs != FsType.RSYNC:
        raise BadRequest("The other server wants a way of transport that was not offered")
    if not answer.refresh:
        return list(offer.snapshot_names)
    wanted = set(answer.snapshot_names)
    if not wanted <= set(offer.snapshot_names):
        raise BadRequest("The other server wants snapshots that were not offered")
    return [name for name in offer.snapshot_names if name in wanted]


async def hear_stream(link: Channels, limit: int) -> bytes:
    """What comes over the link of files until the barrier. BadRequest for more than `limit` bytes."""
    heard = b""
    while (data := await link.files.receive()) is not None:
        heard += data
        if len(heard) > limit:
            raise BadRequest("The other server says more than can be")
    if link.files.gone:
        raise ConnectionResetError
    return heard


def _check_answer(answer: bytes) -> None:
    """BadRequest, with its reason, unless the target goes on."""
    try:
        told = json.loads(answer)
        refused = told.get("StatusCode") != 200
        reason = str(told.get("Error", ""))[:500]
    except (ValueError, AttributeError, RecursionError) as error:
        raise BadRequest("The other server's answer is malformed") from error
    if refused:
        raise BadRequest(f"The other server refuses: {reason}")


async def _compresses(storage: StorageService, name: str) -> bool:
    pool = await storage.find(name)
    return bool(keys.pool_table(pool.driver).get(pool.config, "rsync.compression"))
