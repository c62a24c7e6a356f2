"""The bytes of images on the wire: uploads as streams of chunks, split images as multipart/form-data."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO

from aiohttp import BodyPartReader, ClientError, web
from aiohttp.http_exceptions import HttpProcessingError

from atoll.domain.errors import BadRequest, NotFound
from atoll.host.threads import in_thread
from atoll.services.images.files import Part

_BLOCK = 1 << 20
_PART_BLOCK = 1 << 18


async def chunks(raw: web.Request) -> AsyncIterator[bytes]:
    """The body, piece by piece. BadRequest when it is cut off or malformed."""
    stream = raw.content.iter_any()
    while True:
        with _malformed():
            chunk = await anext(stream, None)
        if chunk is None:
            return
        yield chunk


async def parts(raw: web.Request) -> AsyncIterator[tuple[str, AsyncIterator[bytes]]]:
    """The parts of a multipart body, each with its name; one is read before the next is asked for."""
    with _malformed():
        reader = await raw.multipart()
    while True:
        with _malformed():
            part = await reader.next()
        if part is None:
            return
        if not isinstance(part, BodyPartReader):
            raise BadRequest("Invalid multipart image: a part has parts itself")
        yield part.name or "", _part_chunks(part)


async def _part_chunks(part: BodyPartReader) -> AsyncIterator[bytes]:
    while True:
        with _malformed():
            chunk = await part.read_chunk(_PART_BLOCK)
        if not chunk:
            return
        yield chunk


@contextmanager
def _malformed() -> Iterator[None]:
    """aiohttp's ways to say that a body is not what it should be."""
    try:
        yield
    except ConnectionError:
        raise
    except (ClientError, HttpProcessingError, web.RequestPayloadError, ValueError, RuntimeError, EOFError) as error:
        raise BadRequest(f"The upload was cut off or is malformed: {error}") from error


def file_answer(part: Part) -> web.FileResponse:
    """One file as a download; aiohttp sends it by the kernel, in ranges if asked to."""
    headers = {"Content-Disposition": f"inline;filename={part.filename}", "Content-Type": "application/octet-stream"}
    return web.FileResponse(part.path, headers=headers)


async def send_parts(raw: web.Request, files: list[Part]) -> web.StreamResponse:
    """Several files as multipart/form-data, in order, with the length told beforehand."""
    boundary = secrets.token_hex(24)
    heads = _heads(boundary, files)
    tail = f"\r\n--{boundary}--\r\n".encode()
    answer = web.StreamResponse(headers={"Content-Type": f"multipart/form-data; boundary={boundary}"})
    answer.content_length = sum(map(len, heads)) + sum(part.size for part in files) + len(tail)
    with ExitStack() as stack:
        opened = [stack.enter_context(await _open(part)) for part in files]
        await answer.prepare(raw)
        if raw.method == "HEAD":
            return answer
        for head, file in zip(heads, opened, strict=True):
            await answer.write(head)
            while block := await in_thread(_reader(file)):
                await answer.write(block)
        await answer.write_eof(tail)
    return answer


def _heads(boundary: str, files: list[Part]) -> list[bytes]:
    """What stands before each file's bytes; before all but the first, the end of the line that the file before it is on."""
    heads = [
        f"--{boundary}\r\n"
        f"Content-Disposition: form-data; name={part.name}; filename={part.filename}\r\n"
        "Content-Type: application/octet-stream\r\n\r\n"
        for part in files
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
