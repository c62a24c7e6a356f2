"""What simplestreams servers said last, kept in files: asked again with its ETag, and used as it is while a server is away."""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import dataclass
from pathlib import Path

from atoll.domain import simplestreams
from atoll.domain.errors import Unavailable
from atoll.domain.simplestreams import StreamImage
from atoll.host import confined
from atoll.host.threads import in_thread
from atoll.host.web import Web

log = logging.getLogger(__name__)

FRESH_SECONDS = 300.0
"""How long a document is used without asking."""

LARGEST_INDEX, LARGEST_PRODUCTS = 1 << 20, 64 << 20


@dataclass(frozen=True, slots=True)
class _Kept:
    body: bytes
    etag: str
    moment: float


class StreamCache:
    """Documents by their addresses, in a folder of the daemon's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def images(self, server: Web, *, at_once: bool = False) -> list[StreamImage]:
        """All images of a server; `at_once`: it is asked, however fresh its last word is. Unavailable if it is away and was never
        asked."""
        fresh = 0.0 if at_once else FRESH_SECONDS
        index = await self._document(server, simplestreams.INDEX, LARGEST_INDEX, fresh)
        found: list[StreamImage] = []
        left = LARGEST_PRODUCTS  # of all together: each takes memory many times its size
        for path in simplestreams.product_paths(index):
            products = await self._document(server, path, left, fresh)
            left = max(0, left - len(products))
            found += await in_thread(simplestreams.images, products)
        return found

    async def _document(self, server: Web, path: str, limit: int, fresh: float) -> bytes:
        name = hashlib.sha256(f"{server.address}/{path}".encode()).hexdigest()
        kept = await in_thread(self._read, name)
        if kept is not None and time.time() - kept.moment < fresh:
            return kept.body
        try:
            answer = await server.document(path, limit=limit, etag=kept.etag if kept else "")
        except Unavailable as error:
            if kept is None:
                raise
            log.warning("An image server is away, its last word counts: %s", error)
            return kept.body
        current = answer or kept  # without an answer, what is kept is what the server has
        body, etag = (current.body, current.etag) if current else (b"", "")
        await in_thread(self._write, name, body, etag)
        return body

    def _read(self, name: str) -> _Kept | None:
        try:
            path = self._folder / name
            moment = path.stat().st_mtime
            etag, _, body = path.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        return _Kept(body, etag.decode(errors="replace"), moment)

    def _write(self, name: str, body: bytes, etag: str) -> None:
        """The ETag in the first line, the document below it; in one step."""
        line = etag if etag.isprintable() and etag.isascii() else ""
        confined.write(self._folder, name, line.encode() + b"\n" + body, durable=False)
