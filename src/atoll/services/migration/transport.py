"""How a volume's states go over the link of files, and how two servers agree on that.

    offer      the source: `header = await ways.offer(header, origin)` says in LXD's header which ways there are
    answer     the target: `answer = await ways.answer(offer, arrival)` picks one that both have
    transport  either: `ways.agreed(offer, answer)` is what the two then do: one sends all states, the other receives them

A way that only one side has, or that cannot carry what is to be sent, is passed over; rsync, which carries everything, is last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from atoll.domain.errors import BadRequest
from atoll.domain.idmap import IdMap
from atoll.domain.migration_header import Header
from atoll.drivers.storage.contract import VolumeId
from atoll.host.rsync import Report
from atoll.services.instances.sockets import Socket
from atoll.services.instances.transfer import Place

Reports = Callable[[VolumeId], Report]
"""Who is told of bytes that go, for each state: `lambda volume: staging.progress(operation, volume)`."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What is offered: a volume in a pool. `image`: the fingerprint of the image that it was made of, or "". `is_disk`: it is one
    file, see `host.disk_image`."""

    pool: str
    volume: Place
    image: str = ""
    is_disk: bool = False


@dataclass(frozen=True, slots=True)
class Departure:
    """What is sent of an origin: the snapshots `wanted`, and then `last`, a volume with its content. Nobody changes them.
    `snapshots`: all that were offered, oldest first; of those that are not wanted the target says that it has them."""

    origin: Origin
    last: Place
    snapshots: Sequence[str] = ()
    wanted: Sequence[str] = ()

    @property
    def states(self) -> list[Place]:
        """What is sent, oldest first."""
        return [*(self.origin.volume.at(name) for name in self.snapshots if name in self.wanted), self.last]


@dataclass(frozen=True, slots=True)
class State:
    """A snapshot to come. `shifted`: what its files' ids are mapped by on the source's disk; None for plain ones."""

    name: str
    shifted: IdMap | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """What is to be made in a pool: `target` with those snapshots, oldest first.

    `kept`: None if there is no such volume yet. Else there is one, which is to be refreshed, and these of its snapshots, oldest
    first, are those of the source, too. `passes`: how often the content itself is sent where files go one by one. `project`: the
    one whose images may be used for it.
    """

    pool: str
    target: Place
    snapshots: Sequence[State] = ()
    shifted: IdMap | None = None
    kept: Sequence[str] | None = None
    passes: int = 1
    project: str = ""
    is_disk: bool = False

    @property
    def is_shifted(self) -> bool:
        """Whether ids have to be turned back in any state."""
        return self.shifted is not None or any(each.shifted is not None for each in self.snapshots)


class Transport(Protocol):
    """How the files go, once both sides have agreed: one sends, the other receives."""

    async def send(self, departure: Departure, socket: Socket, reports: Reports) -> None:
        """All states. Unavailable if the link breaks; HostError."""

    async def receive(self, arrival: Arrival, socket: Socket, reports: Reports) -> None:
        """Make the volume and its snapshots, or with `kept` bring them up to date. What a failure leaves of them is the
        caller's to delete. BadRequest for what is not as it must be."""


class Way(Protocol):
    """One way, as either side knows it before they agree."""

    async def offer(self, header: Header, origin: Origin) -> Header:
        """The offer, with what this way needs said in it; unchanged if it cannot carry that."""

    async def answer(self, offer: Header, arrival: Arrival) -> Header | None:
        """The part of an answer that is about this way; None if the source does not offer it, or it cannot carry this volume."""

    def agreed(self, offer: Header, answer: Header) -> Transport | None:
        """What the answer asks for; None if that is another way. BadRequest for what was not offered."""


class Ways:
    """All ways of this server, the best first."""

    def __init__(self, ways: Sequence[Way]) -> None:
        self._ways = ways

    async def offer(self, header: Header, origin: Origin) -> Header:
        """A source's offer: `header` with what each way adds to it."""
        for way in reversed(self._ways):
            header = await way.offer(header, origin)
        return header

    async def answer(self, offer: Header, arrival: Arrival) -> Header:
        """The part of a target's answer that chooses the way. BadRequest if no way can be used."""
        for way in self._ways:
            if (answer := await way.answer(offer, arrival)) is not None:
                return answer
        raise BadRequest("The other server offers no way of transport that is known here")

    def agreed(self, offer: Header, answer: Header) -> Transport:
        """The transport that the answer asks for. BadRequest for a way that was not offered."""
        for way in self._ways:
            if (transport := way.agreed(offer, answer)) is not None:
                return transport
        raise BadRequest("The other server wants a way of transport that was not offered")
