"""The two websockets between source and target: one for what they tell each other, one for the files.

One server has the operation and waits, the other one connects. The one that fails tells the other why, if the link still works.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import NoReturn, TypeVar
from urllib.parse import quote, urlsplit

from atoll.domain import protobuf, words
from atoll.domain.errors import AtollError, BadRequest, HostError, Unavailable
from atoll.domain.migration_header import Control
from atoll.domain.protobuf import Message
from atoll.host import websocket
from atoll.host.threads import in_thread
from atoll.services.instances import sockets
from atoll.services.instances.sockets import CONTROL, Socket, Sockets

FILES = "fs"
NAMES = (CONTROL, FILES)

_ANSWER_SECONDS = 60.0
_REASON_SECONDS = 2.0
_OPERATION = re.compile(r"/1\.0/operations/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

M = TypeVar("M", bound=Message)


def refuse_live() -> NoReturn:
    """BadRequest for a live migration, which neither side can do."""
    raise BadRequest(
        "Moving a running instance with its processes needs CRIU, which is not supported in this release",
        hint="stop the instance, or copy its files alone with --stateless",
    )


class _Refused(HostError):
    """The other side has said that it failed, and why."""


@dataclass(frozen=True, slots=True)
class Peer:
    """An operation of another server, whose websockets are to be opened. `certificate` (PEM) is the one it is known by."""

    operation: str
    certificate: str
    secrets: Mapping[str, str]

    def check(self) -> None:
        """BadRequest for what cannot be one."""
        parts = urlsplit(self.operation)
        plain = self.operation.isprintable() and parts.scheme == "https" and parts.hostname
        if not plain or not _OPERATION.fullmatch(parts.path):
            raise BadRequest("operation: the https:// address of an operation of another server is required")
        for name in NAMES:
            if not self.secrets.get(name):
                raise BadRequest(f"secrets: the one of {name!r} is required")
        self.known()

    def known(self) -> bytes | None:
        """The certificate in DER; None if an authority has to vouch for the server."""
        if not self.certificate:
            return None
        try:
            return ssl.PEM_cert_to_DER_cert(self.certificate.strip())
        except ValueError as error:
            raise BadRequest("certificate: not a certificate in PEM") from error

    def url(self, name: str) -> str:
        """The address of one websocket."""
        parts = urlsplit(self.operation)
        return f"wss://{parts.netloc}{parts.path}/websocket?secret={quote(self.secrets[name])}"


class Channels:
    """Both websockets, once they are connected: `files` carries the files, the other one protobuf messages."""

    def __init__(self, control: Socket, files: Socket) -> None:
        self._control = control
        self.files = files

    async def tell(self, message: Message) -> None:
        """Unavailable if the link is broken, or the peer does not read."""
        data = await in_thread(protobuf.encode, message)  # a peer's own snapshots are in the answer to it: up to a second
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await self._control.send(data)
        except ConnectionError as error:
            raise Unavailable("The connection to the other server broke") from error
        except TimeoutError as error:
            raise Unavailable("The other server does not listen") from error

    async def hear(self, kind: type[M], *, seconds: float | None = _ANSWER_SECONDS) -> M:
        """The next message. BadRequest if it is none of that kind, Unavailable if none comes."""
        try:
            async with asyncio.timeout(seconds):
                data = await self._control.receive()
        except TimeoutError as error:
            raise Unavailable("The other server does not answer") from error
        if data is None:
            raise Unavailable("The connection to the other server broke")
        return await in_thread(_decode, kind, data)

    async def hear_success(self) -> None:
        """Wait until the other side is done. HostError, with its reason, if it failed."""
        _check(await self.hear(Control, seconds=None))

    @asynccontextmanager
    async def told(self) -> AsyncIterator[None]:
        """Tell the other side when the block fails. If the link broke because the other side failed first, the error says why."""
        try:
            yield
        except _Refused:
            raise
        except (Unavailable, HostError) as error:
            reason = await self._reason()
            await self._complain(str(error))
            if not reason:
                raise
            raise type(error)(f"{error}; the other server says: {reason}") from error
        except AtollError as error:
            await self._complain(str(error))
            raise
        except asyncio.CancelledError:
            await asyncio.shield(self._complain("Operation was cancelled"))
            raise

    async def _complain(self, reason: str) -> None:
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(_REASON_SECONDS):
                await self._control.send(protobuf.encode(Control(success=False, message=reason)))

    async def _reason(self) -> str:
        try:
            told = await self.hear(Control, seconds=_REASON_SECONDS)
        except AtollError:
            return ""
        return "" if told.success else words.of_stranger(told.message or "")


def _decode(kind: type[M], data: bytes) -> M:
    """HostError if instead of something of that kind the other side says that it failed."""
    try:
        return protobuf.decode(kind, data)
    except BadRequest:
        with suppress(BadRequest):
            _check(protobuf.decode(Control, data))
        raise


def _check(told: Control) -> None:
    if not told.success:
        raise _Refused(f"The other server failed: {words.of_stranger(told.message or 'it does not say why')}")


@asynccontextmanager
async def connected(awaited: Sockets) -> AsyncIterator[Channels]:
    """The websockets of an operation of ours, once somebody has connected them. BadRequest if nobody does in time."""
    try:
        found = await awaited.connected(NAMES)
        yield Channels(found[CONTROL], found[FILES])
    finally:
        awaited.release()


@asynccontextmanager
async def opened(peer: Peer) -> AsyncIterator[Channels]:
    """The websockets of another server's operation. Unavailable if it cannot be reached or does not know the secrets."""
    known = peer.known()
    async with AsyncExitStack() as stack:
        found = [
            await stack.enter_async_context(websocket.connect(peer.url(name), known=known, largest=sockets.LARGEST_MESSAGE))
            for name in NAMES
        ]
        yield Channels(*found)
