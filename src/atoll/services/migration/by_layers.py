"""Streams of layers, between two pools of Atoll that keep instances as stacks of them. To LXD it is rsync that is spoken of.

    source → target   which layers there are, which of them each state has, and which one is an image's; with the small files
                      that stand beside the root file systems
    target → source   whether it has that, too
    source → target   each layer, lowest first

Either may refuse when it comes to that; then files go one by one. An image's layer is left out if the target has the image in its
own pool, the project may use it, and both have unpacked the same files from it: see docs/decisions/0014.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec

from atoll.domain.errors import BadRequest, NotFound, Unsupported
from atoll.domain.migration_header import Header, LayerFeatures
from atoll.drivers.storage.contract import VolumeId, VolumeKind
from atoll.drivers.storage.layer_streams import Layer, LayerArrival, LayerStreams
from atoll.host import archive_layers
from atoll.host.rsync import Report
from atoll.host.threads import in_thread
from atoll.services import budgets
from atoll.services.images.service import ImageService
from atoll.services.instances.sockets import Socket
from atoll.services.instances.transfer import Place
from atoll.services.migration import files, staging
from atoll.services.migration.by_rsync import ByRsync, RsyncTransport
from atoll.services.migration.files import Files
from atoll.services.migration.transport import Arrival, Departure, Origin, Reports

VERSION = 1
MOST_LAYERS = 10_000
HIGHEST = 64
"""How many layers a state may have."""

_CURRENT = ""
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


class _Layer(msgspec.Struct, frozen=True):
    name: str
    opaque: list[bytes] = []


class _State(msgspec.Struct, frozen=True):
    snapshot: str
    stack: list[str]
    beside: dict[str, bytes] = {}


class _Plan(msgspec.Struct, frozen=True):
    """`layers` in the order in which they come; each lies below those after it. `base` is that of the image."""

    refused: str = ""
    layers: list[_Layer] = []
    states: list[_State] = []
    base: str = ""
    digest: str = ""


class _Reply(msgspec.Struct, frozen=True):
    refused: str = ""
    has_base: bool = False


class ByLayers:
    """See `transport.Way`."""

    def __init__(self, images: ImageService, rsync: ByRsync) -> None:
        self._images = images
        self._rsync = rsync

    async def offer(self, header: Header, origin: Origin) -> Header:
        """See `transport.Way`."""
        driver, volume = origin.volume.driver, origin.volume.volume
        if not isinstance(driver, LayerStreams) or volume.kind is not VolumeKind.INSTANCE:
            return header
        return dataclasses.replace(header, layers=LayerFeatures(VERSION, await _present(driver, origin.image)))

    async def answer(self, offer: Header, arrival: Arrival) -> Header | None:
        """None for a refresh: rsync sends less for it."""
        driver, volume = arrival.target.driver, arrival.target.volume
        usable = isinstance(driver, LayerStreams) and volume.kind is VolumeKind.INSTANCE
        if not usable or arrival.kept is not None or offer.layers is None or offer.layers.version != VERSION:
            return None
        answer = await self._rsync.answer(offer, arrival)
        assert isinstance(driver, LayerStreams) and answer is not None  # rsync can always be answered
        image = offer.layers.image or ""
        known = await _present(driver, image) if await self._may_use(arrival.project, image) else None
        return dataclasses.replace(answer, layers=LayerFeatures(VERSION, known))

    def agreed(self, offer: Header, answer: Header) -> LayerTransport | None:
        """See `transport.Way`."""
        if answer.layers is None:
            return None
        told = offer.layers
        if told is None or answer.layers.version != VERSION or answer.layers.image not in (None, told.image):
            raise BadRequest("The other server wants layers that were not offered")
        otherwise = self._rsync.agreed(offer, answer)
        if otherwise is None:
            raise BadRequest("The other server wants two ways of transport at once")
        return LayerTransport(otherwise, answer.layers.image or "")

    async def _may_use(self, project: str, fingerprint: str) -> bool:
        """Whoever asks for the instance could make one of that image."""
        try:
            return (await self._images.find(project, fingerprint)).fingerprint == fingerprint
        except (NotFound, BadRequest):
            return False


async def _present(driver: LayerStreams, fingerprint: str) -> str | None:
    if not _FINGERPRINT.fullmatch(fingerprint):
        return None
    async with driver.image(fingerprint) as layer:
        return fingerprint if layer is not None else None


@asynccontextmanager
async def _image(driver: LayerStreams, fingerprint: str) -> AsyncIterator[str]:
    """The layer of an image that both have, or ""."""
    if not fingerprint:
        yield ""
        return
    async with driver.image(fingerprint) as layer:
        yield layer or ""


class LayerTransport:
    """See `transport.Transport`. `image`: the one that both have, or ""."""

    def __init__(self, otherwise: RsyncTransport, image: str) -> None:
        self._otherwise = otherwise
        self._image = image

    # --- the source ----------------------------------------------------------------------------------------------------

    async def send(self, departure: Departure, socket: Socket, reports: Reports) -> None:
        """See `transport.Transport`."""
        link, driver = Files(socket), departure.last.driver
        assert isinstance(driver, LayerStreams)  # or it had not been offered
        async with _image(driver, self._image) as image:
            layers, plan = await self._plan(driver, departure, image)
            await link.tell(plan)
            reply = await link.hear(_Reply)
            if not (plan.refused or reply.refused):
                report = reports(departure.origin.volume.volume)
                await _send_layers([each for each in layers if not reply.has_base or each.name != plan.base], link, report)
                return
        await self._otherwise.send(departure, socket, reports)

    async def _plan(self, driver: LayerStreams, departure: Departure, image: str) -> tuple[list[Layer], _Plan]:
        """What is to be sent, lowest layers first."""
        volumes = [state.volume for state in departure.states]
        stacks = await driver.stacks(volumes)
        names = list(dict.fromkeys(name for volume in volumes for name in reversed(stacks[volume])))
        base = image if image in names else ""
        try:
            layers = [await driver.layer(name) for name in _ordered(names, stacks)]
        except Unsupported as error:
            return [], _Plan(refused=str(error))
        states = [await _state(each, stacks[each.volume], departure) for each in departure.states]
        digest = await driver.digest(base) if base else ""
        told = [_Layer(each.name, list(each.opaque)) for each in layers]
        if max(map(len, stacks.values())) > HIGHEST:
            return [], _Plan(refused=f"a state has more than {HIGHEST} layers")
        plan = _Plan(layers=told, states=states, base=base if digest else "", digest=digest)
        return layers, plan if files.fit(plan) else _Plan(refused="there is too much to tell of it")

    # --- the target ----------------------------------------------------------------------------------------------------

    async def receive(self, arrival: Arrival, socket: Socket, reports: Reports) -> None:
        """See `transport.Transport`."""
        link, driver = Files(socket), arrival.target.driver
        assert isinstance(driver, LayerStreams)  # or it had not been answered
        async with _image(driver, self._image) as image:
            plan = await link.hear(_Plan)
            refused = plan.refused or ("the files have another host's ids" if arrival.is_shifted else "")
            base = plan.base if image and plan.digest and await driver.digest(image) == plan.digest else ""
            await link.tell(_Reply(refused, has_base=bool(base)))
            if not refused:
                _check(plan, [*(each.name for each in arrival.snapshots), _CURRENT])
                known = {base: image} if base and image else {}
                await self._receive(driver, arrival, plan, known, link, reports(arrival.target.volume))
                return
        await self._otherwise.receive(arrival, socket, reports)

    async def _receive(
        self, driver: LayerStreams, arrival: Arrival, plan: _Plan, known: Mapping[str, str], link: Files, report: Report
    ) -> None:
        volume = arrival.target.volume
        async with driver.arriving(volume) as coming:
            names = await self._receive_layers(coming, arrival, plan, known, link, report)
            for state in plan.states:
                target = volume.at(state.snapshot) if state.snapshot else volume
                settle = partial(staging.write_beside, state.beside)
                await coming.state(target, [names[name] for name in state.stack], settle)

    async def _receive_layers(
        self, coming: LayerArrival, arrival: Arrival, plan: _Plan, known: Mapping[str, str], link: Files, report: Report
    ) -> Mapping[str, str]:
        """Our names for the source's."""
        names = dict(known)
        top = plan.states[-1].stack[0]
        budget = await budgets.of_pool(arrival.target.driver)
        for layer in plan.layers:
            if layer.name not in names:

                async def unpack(tree: Path) -> None:
                    await archive_layers.unpack(link.chunks(report), tree, budget)

                names[layer.name] = await coming.layer(unpack, layer.opaque, upper=layer.name == top)
        return names


async def _state(state: Place, stack: Sequence[str], departure: Departure) -> _State:
    name = _CURRENT if state == departure.last else state.volume.snapshot
    return _State(name, list(stack), await in_thread(staging.read_beside, state.driver.data(state.volume)))


def _ordered(names: Sequence[str], stacks: Mapping[VolumeId, Sequence[str]]) -> list[str]:
    """Each below those after it: a layer lies on the same ones in every stack."""
    height = {name: len(stack) - at for stack in stacks.values() for at, name in enumerate(stack)}
    return sorted(names, key=lambda name: height[name])


async def _send_layers(layers: Sequence[Layer], link: Files, report: Report) -> None:
    for layer in layers:
        await _pack(layer.tree, link, report)


async def _pack(tree: Path, link: Files, report: Report) -> None:
    async def sink(data: bytes) -> None:
        await link.send(data)
        report(len(data))

    await archive_layers.pack(tree, sink)
    await link.end()


def _check(plan: _Plan, wanted: Sequence[str]) -> None:
    """BadRequest unless the plan has just these states, of layers that it has, all of which are of use."""
    names = [each.name for each in plan.layers]
    used = {name for state in plan.states for name in state.stack}
    if [state.snapshot for state in plan.states] != list(wanted) or not all(
        0 < len(state.stack) <= HIGHEST for state in plan.states
    ):
        raise BadRequest("The other server's list of layers does not fit what it offered")
    if len(names) > MOST_LAYERS or len(set(names)) != len(names) or used != set(names):
        raise BadRequest("The other server's list of layers is malformed")
