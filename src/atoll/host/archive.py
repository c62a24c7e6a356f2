"""Image files: what is in them, how they are unpacked and packed. The face of the `archive_*` modules.

    unified image   one archive of metadata.yaml, rootfs/ and templates/
    split image     a metadata archive (metadata.yaml, templates/) and a root file system, an archive or a squashfs

An image comes from a stranger until proven otherwise: see `archive_unpack` for how that is handled.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from atoll.domain import image_metadata
from atoll.domain.errors import BadRequest, Unsupported
from atoll.domain.image_metadata import ImageMetadata
from atoll.host import archive_kind, archive_squashfs, archive_stream, archive_tar
from atoll.host.archive_check import read_file
from atoll.host.archive_kind import Kind
from atoll.host.archive_pack import Packed, hash_files, pack_image
from atoll.host.archive_stream import Progress
from atoll.host.archive_tar import Budget
from atoll.host.archive_unpack import empty, unpack_image
from atoll.host.threads import in_thread

__all__ = [
    "Budget",
    "Ingested",
    "Kind",
    "Packed",
    "Progress",
    "empty",
    "hash_files",
    "identify",
    "ingest",
    "pack_image",
    "read_file",
    "read_member",
    "unpack_image",
]


@dataclass(frozen=True, slots=True)
class Ingested:
    """An image's files, validated. `kind` is the root file system's for a split image; `size` of all files in bytes."""

    fingerprint: str
    size: int
    kind: Kind
    metadata: ImageMetadata


async def identify(path: Path) -> Kind:
    """The kind of a file by its first bytes. BadRequest if it is none that images are made of."""
    return await in_thread(archive_kind.identify, path)


async def read_member(
    path: Path, name: str, *, limit: int = image_metadata.MAX_BYTES, budget: Budget | None = None
) -> bytes | None:
    """The content of the first file of that name in an archive, None if there is none; reads no further than it must.

    BadRequest for a broken archive, TooLarge for a file beyond `limit` bytes or an archive beyond the budget.
    """
    budget = budget or Budget()
    kind = await identify(path)
    async with archive_stream.time_limit(budget.seconds, "Reading the image"):
        if kind is Kind.SQUASHFS:
            return await archive_squashfs.read_member(path, name, limit=limit)
        if kind is Kind.QCOW2:
            raise Unsupported("The image is one of a virtual machine")
        async with archive_stream.open_tar(path, kind, budget) as archive:
            return await archive.worker.run(lambda: archive_tar.find_file(archive.source, name.encode(), budget, limit=limit))


async def ingest(meta: Path, rootfs: Path | None = None, *, fingerprint: str = "", budget: Budget | None = None) -> Ingested:
    """Validate an uploaded image, unified or split, as far as that goes without unpacking it, and take its fingerprint, unless
    who wrote the files has hashed them already.

    The root file system itself is looked at by `unpack_image`. BadRequest for what is no image, Unsupported for one of a
    virtual machine.
    """
    files = [meta] if rootfs is None else [meta, rootfs]
    kinds = [await identify(path) for path in files]
    if Kind.QCOW2 in kinds:
        raise Unsupported("The image is one of a virtual machine")
    if rootfs is not None and kinds[0] is Kind.SQUASHFS:
        raise BadRequest("The metadata part of an image must be a tar archive")
    text = await read_member(meta, "metadata.yaml", budget=budget)
    if text is None:
        raise BadRequest("The image has no metadata.yaml")
    metadata = image_metadata.parse(text)
    size = sum([(await in_thread(path.stat)).st_size for path in files])
    return Ingested(fingerprint or await hash_files(files), size, kinds[-1], metadata)
