"""Builds an image by its recipe: as a tree for a storage pool and as a packed unified image with its fingerprint.

recipe = recipes.find("debian/12")
built = await build.build(recipe, directory, output, progress=…)
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from atoll.domain import architectures, compression, image_metadata
from atoll.domain.architectures import Architecture
from atoll.domain.compression import Compression
from atoll.domain.errors import BadRequest
from atoll.domain.image_metadata import ImageMetadata
from atoll.domain.undo import Reverter
from atoll.host import archive
from atoll.host.imagebuild import busybox, debian, template
from atoll.host.imagebuild.debian import Progress
from atoll.host.imagebuild.recipe import Distribution, Recipe
from atoll.host.threads import in_thread

UNDO_SECONDS = 600.0
"""How long removing a half-built tree may take."""


@dataclass(frozen=True, slots=True)
class Built:
    """What a build made: `packed` is the file, `metadata` what its metadata.yaml says."""

    metadata: ImageMetadata
    packed: archive.Packed


def host_architecture() -> Architecture:
    """The architecture that this host builds for: its own."""
    return architectures.find(os.uname().machine)


async def build(
    recipe: Recipe, directory: Path, output: Path, *, compress: Compression = compression.ZSTD, progress: Progress | None = None
) -> Built:
    """Build into `directory`, which is empty or holds an empty `rootfs/`, and pack that into the new file `output`.

    The directory then has metadata.yaml, rootfs/ and templates/, with root's ids as a pool wants them. If the build fails or
    is cancelled, nothing of it runs on, the directory is as empty as before and there is no file.
    """
    report = progress or _silent
    machine = host_architecture()
    if recipe.distribution is not Distribution.BUSYBOX and not machine.debian:
        raise BadRequest(f"{recipe.distribution.brand} has no packages for {machine.name}")
    async with Reverter(f"build image {recipe.name}", step_seconds=UNDO_SECONDS) as undo:
        undo.add(archive.empty, directory)
        report(0, "Preparing")
        await in_thread((directory / "rootfs").mkdir, mode=0o755, exist_ok=True)
        if recipe.distribution is Distribution.BUSYBOX:
            await busybox.build_tree(directory)
        else:
            await debian.build_tree(recipe, machine, directory, report)
        metadata = template.metadata(recipe, machine)
        await in_thread(template.write, directory, "metadata.yaml", image_metadata.dump(metadata))
        report(94, "Packing the image")
        packed = await archive.pack_image(directory, output, metadata, compression=compress)
        report(100, "Done")
        undo.success()
    return Built(metadata, packed)


def _silent(percent: int, text: str) -> None:
    """Progress that nobody asked for."""
