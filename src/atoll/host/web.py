"""Requests to other servers: small documents into memory, large files to disk, both within budgets of bytes and time.

A server is believed by an authority of this system, or, where its certificate is known (`known`), by that very certificate.
`core.proxy_*` are honoured, by the environment.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import aiohttp

from atoll.domain.errors import BadRequest, DeadlineExceeded, NotFound, TooLarge, Unavailable
from atoll.host.threads import in_thread

CONNECT_SECONDS = 15.0
IDLE_SECONDS = 60.0
DOCUMENT_SECONDS = 60.0
_BLOCK = 1 << 20
_REDIRECTS = 5

Progress = Callable[[int, float], None]
"""(bytes that are there, bytes a second)"""


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

    async def document(
        self, path: str, *, limit: int, etag: str = "", headers: Mapping[str, str] | None = None
    ) -> Document | None:
        """What is at `path`, of at most `limit` bytes; None when it still is what had that ETag. NotFound, Unavailable."""
        sent = {**(headers or {}), **({"If-None-Match": etag} if etag else {})}
        async with asyncio.timeout(DOCUMENT_SECONDS), self._get(path, sent) as answer:
            if answer.status == 304:
                return None
            body = bytearray()
            async for chunk in answer.content.iter_chunked(_BLOCK):
                body += chunk
                if len(body) > limit:
                    raise TooLarge(f"{self.address}/{path} is larger than {limit} bytes")
            return Document(bytes(body), answer.headers.get("ETag", ""))

    async def head(self, path: str, headers: Mapping[str, str]) -> Mapping[str, str]:
        """The headers of what is at `path`."""
        async with self._request("HEAD", path, headers) as answer:
            return answer.headers

    async def download(self, path: str, target: Path, *, sha256: str, size: int, progress: Progress | None = None) -> None:
        """Write a file of that size and hash. What an interrupted download left in `target` is continued.

        BadRequest, with nothing left, for a file that is another one.
        """
        present, digest = await in_thread(_begun, target, size)
        headers = {"Range": f"bytes={present}-", "Accept-Encoding": "identity"} if present else {"Accept-Encoding": "identity"}
        if present < size:
            async with self._get(path, headers) as answer:
                if present and answer.status != 206:
                    present, digest = 0, hashlib.sha256()
                await _save(answer, target, present, size, digest, progress)
        if digest.hexdigest() != sha256:
            await in_thread(target.unlink, missing_ok=True)
            raise BadRequest(f"{self.address}/{path} is not the file that the image server announced: its hash differs")

    @asynccontextmanager
    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to a GET, to be read by the caller. NotFound, Unavailable."""
        async with self._get(path, headers or {}) as answer:
            yield answer

    def _get(self, path: str, headers: Mapping[str, str]) -> Any:
        return self._request("GET", path, headers)

    @asynccontextmanager
    async def _request(self, method: str, path: str, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        url = f"{self.address}/{path.lstrip('/')}" if path else self.address
        try:
            async with self._session.request(method, url, headers=headers, max_redirects=_REDIRECTS) as answer:
                if answer.status == 404:
                    raise NotFound(f"{url} is not there")
                if answer.status >= 400:
                    raise Unavailable(f"{url} answers with status {answer.status}")
                yield answer
        except (aiohttp.ClientError, ssl.SSLError, ValueError) as error:
            raise Unavailable(f"{self.address} cannot be reached: {error}") from error
        except TimeoutError as error:
            raise DeadlineExceeded(f"{self.address} does not answer") from error


@asynccontextmanager
async def visit(address: str, *, known: bytes | None = None, identity: tuple[Path, Path] | None = None) -> AsyncIterator[Web]:
    """A server by its https:// address, while the block runs."""
    if not address.startswith("https://"):
        raise BadRequest(f"{address[:80]!r} is not an https:// address")
    context = await in_thread(client_context, known, identity)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=IDLE_SECONDS)
    connector = aiohttp.TCPConnector(ssl=context, limit=4)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=True, auto_decompress=True) as session:
        yield Web(session, address)


def _begun(target: Path, size: int) -> tuple[int, Any]:
    """(bytes of a file that are there already, their hash so far); one that is too long begins anew."""
    digest = hashlib.sha256()
    try:
        with open(os.open(target, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
            present = file.tell()
    except FileNotFoundError:
        return 0, digest
    return (present, digest) if present <= size else (0, hashlib.sha256())


async def _save(
    answer: aiohttp.ClientResponse, target: Path, present: int, size: int, digest: Any, progress: Progress | None
) -> None:
    begun, written = time.monotonic(), present
    with await in_thread(_open, target, present) as file:

        def write(block: bytes) -> None:
            view = memoryview(block)
            while view:
                view = view[file.write(view) :]
            digest.update(block)

        pending = bytearray()
        try:
            async for chunk in answer.content.iter_any():
                pending += chunk
                written += len(chunk)
                if written > size:
                    raise TooLarge(f"{answer.url} is larger than announced")
                if len(pending) >= _BLOCK:
                    block, pending = bytes(pending), bytearray()
                    await in_thread(write, block)
                    if progress is not None:
                        progress(written, (written - present) / max(time.monotonic() - begun, 0.001))
        finally:  # what came before a connection broke need not come again
            await in_thread(write, bytes(pending))
            await in_thread(os.fsync, file.fileno())
    if written < size:
        raise Unavailable(f"{answer.url} ended too early")


def _open(target: Path, present: int) -> FileIO:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    os.ftruncate(descriptor, present)
    os.lseek(descriptor, present, os.SEEK_SET)
    return FileIO(descriptor, "w")
