"""Takes in the bytes of an image, in one file or two, into a staging folder. An upload that is cut off leaves nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from atoll.domain import names
from atoll.domain.errors import BadRequest, Unsupported
from atoll.domain.undo import Reverter
from atoll.services import budgets
from atoll.services.images.files import ImageFiles
from atoll.services.images.model import Staged
from atoll.services.intake import Chunks, Intake

Parts = AsyncIterator[tuple[str, str, Chunks]]
"""(name, file name or "", content) of each part of a form."""

MAX_BYTES = 64 << 30
"""Of one image, packed."""


async def room(files: ImageFiles) -> int:
    """Bytes that an image may have now: what is free, but for a reserve."""
    return min(MAX_BYTES, await budgets.of_folder(files.folder))


async def unified(files: ImageFiles, chunks: Chunks) -> Staged:
    """An image in one file. The caller discards the staging folder, or hands it on."""
    async with Reverter("receive image") as undo:
        folder = await files.stage()
        undo.add(files.discard, folder)
        intake = Intake("image", await room(files))
        await intake.take(chunks, folder / "meta")
        undo.success()
    return Staged(folder, intake.fingerprint, folder / "meta")


async def split(files: ImageFiles, parts: Parts) -> Staged:
    """An image in two parts, `metadata` and then `rootfs`; each part's chunks are read before the next part is asked for.

    BadRequest for other parts, Unsupported for the disk of a virtual machine (`rootfs.img`).
    """
    async with Reverter("receive image") as undo:
        folder = await files.stage()
        undo.add(files.discard, folder)
        staged = await split_into(folder, parts, limit=await room(files))
        undo.success()
    return staged


async def split_into(folder: Path, parts: Parts, *, limit: int) -> Staged:
    """`split` into an empty staging folder of the caller's, of at most `limit` bytes."""
    intake = Intake("image", limit)
    meta, rootfs = folder / "meta", folder / "rootfs"
    _, chunks = await _part(parts, "metadata")
    await intake.take(chunks, meta)
    filename, chunks = await _part(parts, "rootfs")
    await intake.take(chunks, rootfs)
    await _no_more(parts)
    return Staged(folder, intake.fingerprint, meta, rootfs, filename)


async def _part(parts: Parts, wanted: str) -> tuple[str, Chunks]:
    """(file name, content) of the next part"""
    try:
        name, filename, chunks = await anext(parts)
    except StopAsyncIteration as error:
        raise BadRequest(f"Invalid multipart image: there is no part {wanted!r}") from error
    if wanted == "rootfs" and name == "rootfs.img":
        raise Unsupported("The image is one of a virtual machine, which this server does not run")
    if name != wanted:
        raise BadRequest(f"Invalid multipart image: part {wanted!r} expected, not {name[:40]!r}")
    return names.filename(filename) if filename else "", chunks


async def _no_more(parts: Parts) -> None:
    async for name, _, _ in parts:
        raise BadRequest(f"Invalid multipart image: unexpected part {name[:40]!r}")
