"""Requests to other servers: small documents into memory, large bodies as streams, all within budgets of bytes and time.

A server is believed by an authority of this system, or, where its certificate is known (`known`), by that very certificate.
Redirects are followed by HTTPS alone. `core.proxy_*` are honoured, by the environment.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import aiohttp

from atoll.domain import words
from atoll.domain.errors import AtollError, BadRequest, DeadlineExceeded, Forbidden, NotFound, TooLarge, Unavailable
from atoll.host.threads import in_thread

CONNECT_SECONDS = 15.0
IDLE_SECONDS = 60.0
ANSWER_SECONDS = 60.0
"""Until the headers of an answer are there."""
DOCUMENT_SECONDS = 60.0
VERDICT_SECONDS = 600.0
"""How long a server may think about a body that it has whole."""
PACE_SECONDS = 60.0
SLOWEST = 1 << 10
"""Bytes a second, over PACE_SECONDS: whoever sends less wants to hold a connection, not to send."""
_REDIRECTS = 5
_LARGEST_REFUSAL = 1 << 16
_REASON = re.compile(rb'"error"\s*:\s*"([^"\\\x00-\x1f]+)')
_MOVED = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class Document:
    """A small answer."""

    body: bytes
    etag: str


class _Pinned(ssl.SSLObject):
    """Ends the handshake unless the peer has the certificate of its context."""

    def do_handshake(self) -> None:
        super().do_handshake()
        if self.getpeercert(binary_form=True) != getattr(self.context, "known", None):
            raise ssl.SSLCertVerificationError("the server's certificate is not the known one")


class _PinnedContext(ssl.SSLContext):
    sslobject_class = _Pinned
    known: bytes


def client_context(known: bytes | None, identity: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    """For connections to a server with that certificate (DER), or one an authority vouches for; `identity`: ours (certificate,
    key)."""
    if known is None:
        context = ssl.create_default_context()
    else:
        context = _PinnedContext(ssl.PROTOCOL_TLS_CLIENT)
        context.known = known
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if identity is not None:
        context.load_cert_chain(*identity)
    return context


class Web:
    """A server, while entered by `visit`."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self._session = session
        self.address = address.rstrip("/")

    async def document(self, path: str, *, limit: int, etag: str = "", seconds: float = DOCUMENT_SECONDS) -> Document | None:
        """What is at `path`, of at most `limit` bytes when unpacked; None when it still is what had that ETag. NotFound,
        Unavailable, TooLarge, DeadlineExceeded."""
        sent = {"Accept-Encoding": "gzip", **({"If-None-Match": etag} if etag else {})}
        try:
            async with asyncio.timeout(seconds), self.get(path, sent) as answer:
                if answer.status == 304:
                    return None
                return Document(await _body(answer, limit), answer.headers.get("ETag", ""))
        except TimeoutError as error:
            raise DeadlineExceeded(f"{self.address} does not answer in time") from error

    async def head(self, path: str, headers: Mapping[str, str]) -> Mapping[str, str]:
        """The headers of what is at `path`."""
        async with self._request("HEAD", path, headers) as answer:
            return answer.headers

    def get(self, path: str, headers: Mapping[str, str]) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """The answer to a GET, to be read by the caller as it was sent: whoever takes it packed has to ask for that. NotFound,
        Unavailable, also while it is read."""
        return self._request("GET", path, headers)

    async def send(self, path: str, body: AsyncIterator[bytes], headers: Mapping[str, str], *, limit: int) -> bytes:
        """What the server answers to a POST of a body. DeadlineExceeded when it no longer takes what is sent."""
        try:
            async with asyncio.timeout(IDLE_SECONDS) as patience:
                watched = _watched(body, patience)
                async with self._request("POST", path, {"Accept-Encoding": "identity", **headers}, watched) as answer:
                    return await _body(answer, limit)
        except TimeoutError as error:
            raise DeadlineExceeded(f"{self.address} takes nothing any more") from error

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, headers: Mapping[str, str], body: AsyncIterator[bytes] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        url = f"{self.address}/{path.lstrip('/')}" if path else self.address
        place = url.partition("?")[0]  # what follows may be a secret
        try:
            async with await self._answer(method, url, headers, body) as answer:
                if answer.status >= 400:
                    raise await _refusal(answer, place)
                yield answer
        except (aiohttp.ClientError, ssl.SSLError, ConnectionError, ValueError) as error:
            reason = words.of_stranger(str(error).replace(url, place)) or type(error).__name__
            raise Unavailable(f"{self.address} cannot be reached: {reason}") from error
        except TimeoutError as error:
            raise DeadlineExceeded(f"{self.address} does not answer") from error

    async def _answer(
        self, method: str, url: str, headers: Mapping[str, str], body: AsyncIterator[bytes] | None
    ) -> aiohttp.ClientResponse:
        """The answer of where redirects lead. A body is sent once, so it is not sent to elsewhere."""
        if body is not None:
            return await self._session.request(method, url, headers=headers, data=body, allow_redirects=False)
        async with asyncio.timeout(ANSWER_SECONDS):
            for _ in range(_REDIRECTS):
                answer = await self._session.request(method, url, headers=headers, allow_redirects=False)
                if answer.status not in _MOVED:
                    return answer
                answer.close()
                url = urljoin(url, answer.headers.get("Location", ""))
                if urlsplit(url).scheme != "https":
                    raise BadRequest(f"{self.address} redirects to what is no https:// address")
        raise BadRequest(f"{self.address} redirects more than {_REDIRECTS} times")


@asynccontextmanager
async def visit(address: str, *, known: bytes | None = None, identity: tuple[Path, Path] | None = None) -> AsyncIterator[Web]:
    """A server by its https:// address, while the block runs."""
    if not address.startswith("https://"):
        raise BadRequest(f"{address[:80]!r} is not an https:// address")
    context = await in_thread(client_context, known, identity)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=IDLE_SECONDS)
    connector = aiohttp.TCPConnector(ssl=context, limit=4)
    # Packed answers are unpacked here, where the bytes that come out are counted.
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=True, auto_decompress=False) as session:
        yield Web(session, address)


async def paced(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The chunks. DeadlineExceeded for a sender that only drips."""
    begun, amount = time.monotonic(), 0
    async for chunk in chunks:
        amount += len(chunk)
        passed = time.monotonic() - begun
        if passed >= PACE_SECONDS:
            if amount < SLOWEST * passed:
                raise DeadlineExceeded(f"The server sends less than {SLOWEST} bytes a second")
            begun, amount = time.monotonic(), 0
        yield chunk


async def _refusal(answer: aiohttp.ClientResponse, place: str) -> AtollError:
    """The error that a status means, with the reason that a server of images gives."""
    if answer.status == 404:
        return NotFound(f"{place} is not there")
    reason = ""
    if answer.content_type == "application/json":
        async with asyncio.timeout(ANSWER_SECONDS):
            found = _REASON.search(await _body(answer, _LARGEST_REFUSAL))
        reason = f": {words.of_stranger(found[1].decode(errors='replace'))}" if found else ""
    if answer.status in (401, 403):
        return Forbidden(f"{place} is not for this server{reason or f': it answers with status {answer.status}'}")
    kind = Unavailable if answer.status >= 500 or answer.status in (408, 429) else BadRequest
    return kind(f"{place} answers with status {answer.status}{reason}")


async def _body(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    """An answer in memory, unpacked. TooLarge when it grows beyond the limit, BadRequest for a broken packing."""
    packing = answer.headers.get("Content-Encoding", "identity").lower()
    if packing not in ("identity", "gzip"):
        raise BadRequest(f"{answer.url.origin()} packs its answers as {packing[:40]!r}, which was not asked for")
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS) if packing == "gzip" else None
    body = bytearray()
    async for chunk in answer.content.iter_any():
        try:
            body += chunk if unpacker is None else unpacker.decompress(chunk, limit + 1 - len(body))
        except zlib.error as error:
            raise BadRequest(f"{answer.url.origin()} sent a broken answer: {error}") from error
        if len(body) > limit:
            raise TooLarge(f"The answer of {answer.url.origin()} is larger than {limit} bytes")
    return bytes(body)


async def _watched(body: AsyncIterator[bytes], patience: asyncio.Timeout) -> AsyncIterator[bytes]:
    """The body; each piece that is taken renews the patience."""
    now = asyncio.get_running_loop().time
    async for chunk in body:
        patience.reschedule(now() + IDLE_SECONDS)
        yield chunk
    patience.reschedule(now() + VERDICT_SECONDS)
