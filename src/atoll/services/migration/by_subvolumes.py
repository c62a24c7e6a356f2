"""Streams of subvolumes, between pools that have such: LXD's way between two on btrfs.

source → target   a list of all subvolumes of all states
target → source   for a refresh: of those the ones that it lacks
source → target   each state's subvolumes, oldest state first, outer subvolumes first: whole, or as changes of the state before
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack

from atoll.domain import backup_metadata
from atoll.domain.backup_metadata import OptimizedHeader, Subvolume
from atoll.domain.errors import BadRequest
from atoll.domain.migration_header import ALL_BTRFS_FEATURES, OFFERED_BTRFS_FEATURES, BtrfsFeatures, FsType, Header
from atoll.drivers.storage.contract import VolumeId
from atoll.drivers.storage.subvolume_streams import Coming, Part, SubvolumeStreams
from atoll.host.rsync import Report
from atoll.services.instances.sockets import Socket
from atoll.services.migration.files import Files
from atoll.services.migration.transport import Arrival, Departure, Origin, Reports

_CURRENT = ""
"""What the list has for a volume itself where snapshots have their names."""


class BySubvolumes:
    """See `transport.Way`."""

    async def offer(self, header: Header, origin: Origin) -> Header:
        """See `transport.Way`."""
        if not isinstance(origin.volume.driver, SubvolumeStreams):
            return header
        return dataclasses.replace(header, fs=FsType.BTRFS, btrfs_features=OFFERED_BTRFS_FEATURES)

    async def answer(self, offer: Header, arrival: Arrival) -> Header | None:
        """None if ids would have to be shifted back, which a stream cannot; or to refresh a volume that came in another way."""
        driver, features = arrival.target.driver, _common(offer)
        if offer.fs != FsType.BTRFS or not isinstance(driver, SubvolumeStreams) or arrival.is_shifted or not _usable(features):
            return None
        if arrival.kept is not None:
            kept = [arrival.target.at(name).volume for name in arrival.kept]
            if not _has_all(offer, arrival) or not (features.refresh or _is_continued(offer, arrival)):
                return None
            if await driver.origins(kept) is None:
                return None
        return Header(fs=FsType.BTRFS, btrfs_features=features)

    def agreed(self, offer: Header, answer: Header) -> SubvolumeTransport | None:
        """See `transport.Way`."""
        if answer.fs != FsType.BTRFS or offer.fs != FsType.BTRFS:
            return None
        if not _usable(_common(answer)):
            raise BadRequest("The other server wants streams of subvolumes as older servers have them")
        return SubvolumeTransport(told=bool(answer.refresh and _common(answer).can_refresh))


def _common(header: Header) -> BtrfsFeatures:
    return ALL_BTRFS_FEATURES.common(header.btrfs_features or BtrfsFeatures())


def _has_all(offer: Header, arrival: Arrival) -> bool:
    """Whether each snapshot of the source comes, or surely is here: what is later may be sent as changes of any of them."""
    return {*offer.snapshot_names} <= {*(each.name for each in arrival.snapshots), *(arrival.kept or ())}


def _is_continued(offer: Header, arrival: Arrival) -> bool:
    """Whether all that comes is later than what is kept. LXD sends what is earlier as changes of what is not there yet."""
    has_uuids = bool(_common(offer).header_subvolume_uuids)
    at = {name: number for number, name in enumerate(offer.snapshot_names)}
    lacking = [at[each.name] for each in arrival.snapshots]
    return has_uuids and all(at[name] < first for first in lacking[:1] for name in arrival.kept or ())


def _usable(features: BtrfsFeatures) -> bool:
    return bool(features.migration_header and features.header_subvolumes)


class SubvolumeTransport:
    """See `transport.Transport`. `told`: the target says which subvolumes it lacks, and gets only those."""

    def __init__(self, *, told: bool) -> None:
        self._told = told

    async def send(self, departure: Departure, socket: Socket, reports: Reports) -> None:
        """See `transport.Transport`."""
        link = Files(socket)
        driver = departure.origin.volume.driver
        assert isinstance(driver, SubvolumeStreams)  # or it had not been offered
        async with AsyncExitStack() as stack:
            volume = departure.origin.volume.volume
            states = {name: volume.at(name) for name in departure.snapshots} | {_CURRENT: departure.last.volume}
            parts = {name: await stack.enter_async_context(driver.at_rest(state)) for name, state in states.items()}
            listed = [_listed(name, part) for name, found in parts.items() for part in found]
            await link.tell(OptimizedHeader(subvolumes=listed))
            if self._told:
                lacking = await _hear_lacking(link)
            else:  # nothing is known to be there but what is sent
                parts = {name: parts[name] for name in (*departure.wanted, _CURRENT)}
                lacking = {(name, part.path) for name, found in parts.items() for part in found}
            for name, part, base in _plan(parts, lacking):
                await _send(driver, part, base, link, reports(states[name] if name else volume))

    async def receive(self, arrival: Arrival, socket: Socket, reports: Reports) -> None:
        """See `transport.Transport`. A stream that does not fit makes the next refresh go file by file."""
        driver, target = arrival.target.driver, arrival.target
        assert isinstance(driver, SubvolumeStreams)  # or it had not been answered
        if arrival.is_shifted:  # which sources of volumes say after the answer
            raise BadRequest("The files have another host's ids, which streams of subvolumes cannot turn back")
        kept = [target.at(name).volume for name in arrival.kept or ()]
        try:
            await self._receive(driver, arrival, kept, Files(socket), reports)
        except BadRequest:
            await driver.forget(kept)
            raise

    async def _receive(
        self, driver: SubvolumeStreams, arrival: Arrival, kept: Sequence[VolumeId], link: Files, reports: Reports
    ) -> None:
        volume = arrival.target.volume
        wanted = [*(each.name for each in arrival.snapshots), _CURRENT]
        states = _states(await link.hear(OptimizedHeader), wanted)
        if self._told:  # of the others LXD would send whatever is named
            await link.tell(OptimizedHeader(subvolumes=[each for name in wanted for each in states[name]]))
        known = await driver.origins(kept) or {}
        receiver = driver.receiver(volume, known)
        for name in wanted:
            state = volume.at(name) if name else volume
            report = reports(state)
            coming = [Coming(each.path, each.readonly, each.uuid, link.chunks(report)) for each in states[name]]
            await receiver.receive(state, coming)


def _listed(name: str, part: Part) -> Subvolume:
    """The volume itself can be written to, whatever it is sent from."""
    readonly = part.readonly and not (name == _CURRENT and part.path == "/")
    return Subvolume(path=part.path, snapshot=name, readonly=readonly, uuid=str(part.uuid))


async def _hear_lacking(link: Files) -> set[tuple[str, str]]:
    return {(each.snapshot, each.path) for each in (await link.hear(OptimizedHeader)).subvolumes}


def _plan(parts: Mapping[str, Sequence[Part]], lacking: Collection[tuple[str, str]]) -> Iterator[tuple[str, Part, Part | None]]:
    """(state, what is sent of it, what it is sent as a change of). That is the same subvolume of the state before if the target
    has it by then. All that the target lacks is sent, also of states whose records it has: LXD waits for all that it named."""
    there: dict[str, Part] = {}
    for name, found in parts.items():
        for part in found:
            if (name, part.path) in lacking:
                yield name, part, there.get(part.path)
        there = {part.path: part for part in found if part.readonly}


async def _send(driver: SubvolumeStreams, part: Part, base: Part | None, link: Files, report: Report) -> None:
    async def sink(data: bytes) -> None:
        await link.send(data)
        report(len(data))

    await driver.stream(part, base, sink)
    await link.end()


def _states(header: OptimizedHeader, wanted: Sequence[str]) -> dict[str, list[Subvolume]]:
    """The list by states. BadRequest unless it has what is wanted, each with its own subvolume first and none twice."""
    backup_metadata.check_header(header, "subvolumes")
    states: dict[str, list[Subvolume]] = {}
    for each in header.subvolumes:
        states.setdefault(each.snapshot, []).append(each)
    for name in wanted:
        paths = [each.path for each in states.get(name, ())]
        if not paths or paths[0] != "/" or len(set(paths)) != len(paths):
            raise BadRequest("The other server's list of subvolumes does not fit what it offered")
    return states
