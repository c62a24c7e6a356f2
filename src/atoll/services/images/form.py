"""The files of an image as one body: a single file as it is, two as multipart/form-data in their order."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import BinaryIO

from atoll.domain.errors import NotFound
from atoll.host.threads import in_thread
from atoll.services.images.files import Part

_BLOCK = 1 << 20


class Form:
    """What `opened` gives: `content_type`, `length` in bytes, and the bytes themselves, once."""

    def __init__(self, parts: list[Part], files: list[BinaryIO]) -> None:
        boundary = secrets.token_hex(24)
        is_form = len(parts) > 1
        self.content_type = f"multipart/form-data; boundary={boundary}" if is_form else "application/octet-stream"
        self._heads = _heads(boundary, parts) if is_form else [b""]
        self._tail = f"\r\n--{boundary}--\r\n".encode() if is_form else b""
        self._files = files
        self.length = sum(map(len, self._heads)) + sum(part.size for part in parts) + len(self._tail)

    async def chunks(self) -> AsyncIterator[bytes]:
        """All of it."""
        for head, file in zip(self._heads, self._files, strict=True):
            if head:
                yield head
            while block := await in_thread(_reader(file)):
                yield block
        if self._tail:
            yield self._tail


@asynccontextmanager
async def opened(parts: list[Part]) -> AsyncIterator[Form]:
    """The body, while the block runs; the files are open before it begins. NotFound if one is missing."""
    with ExitStack() as stack:
        yield Form(parts, [stack.enter_context(await _open(part)) for part in parts])


def _heads(boundary: str, parts: list[Part]) -> list[bytes]:
    """The headers before each file's bytes. All but the first begin with the line break that ends the file before."""
    heads = [
        f"--{boundary}\r\n"
        f"Content-Disposition: form-data; name={part.name}; filename={part.filename}\r\n"
        "Content-Type: application/octet-stream\r\n\r\n"
        for part in parts
    ]
    return [heads[0].encode(), *(f"\r\n{head}".encode() for head in heads[1:])]


def _reader(file: BinaryIO) -> Callable[[], bytes]:
    return lambda: file.read(_BLOCK)


async def _open(part: Part) -> BinaryIO:
    """Opened before the answer begins, so that a missing file is an answer too."""
    try:
        return await in_thread(lambda: part.path.open("rb", buffering=0))
    except FileNotFoundError as error:
        raise NotFound("The image was deleted meanwhile") from error
