"""The bytes of images on the wire: uploads as streams of chunks, split images as multipart/form-data."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from aiohttp import BodyPartReader, ClientError, web
from aiohttp.http_exceptions import HttpProcessingError

from atoll.domain.errors import BadRequest
from atoll.services.images import form
from atoll.services.images.files import Part

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


async def parts(raw: web.Request) -> AsyncIterator[tuple[str, str, AsyncIterator[bytes]]]:
    """The parts of a multipart body, each with its name and its file's; one is read before the next is asked for."""
    with _malformed():
        reader = await raw.multipart()
    while True:
        with _malformed():
            part = await reader.next()
        if part is None:
            return
        if not isinstance(part, BodyPartReader):
            raise BadRequest("Invalid multipart image: a part has parts itself")
        yield part.name or "", part.filename or "", _part_chunks(part)


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
    async with form.opened(files) as body:
        answer = web.StreamResponse(headers={"Content-Type": body.content_type})
        answer.content_length = body.length
        await answer.prepare(raw)
        if raw.method != "HEAD":
            async for chunk in body.chunks():
                await answer.write(chunk)
            await answer.write_eof()
    return answer
