"""Images on their way into the store: what came in or was made, checked and described."""

from __future__ import annotations

from pathlib import Path

from atoll.domain import compression
from atoll.domain.compression import Compression
from atoll.domain.image_metadata import ImageMetadata
from atoll.host import archive
from atoll.host.archive import Kind, Packed
from atoll.services.images.model import Candidate, Format, Staged


async def received(staged: Staged) -> Candidate:
    """What came from elsewhere, read through and checked. BadRequest for what is no image."""
    ingested = await archive.ingest(staged.meta, staged.rootfs, fingerprint=staged.fingerprint)
    single = Format.SQUASHFS if ingested.kind is Kind.SQUASHFS else Format.UNIFIED
    layout = single if staged.rootfs is None else Format.SPLIT
    return Candidate(ingested.fingerprint, ingested.size, layout, ingested.metadata, staged.meta, staged.rootfs)


def packed(made: Packed, metadata: ImageMetadata, path: Path, packing: Compression) -> Candidate:
    """What this server packed itself."""
    layout = Format.SQUASHFS if packing.algorithm is compression.Algorithm.SQUASHFS else Format.UNIFIED
    return Candidate(made.fingerprint, made.size, layout, metadata, path)
