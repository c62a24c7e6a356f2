"""The files of images, and the staging folders in which new ones come to be.

A file is never seen half-written: it is written, validated and flushed in a staging folder beside the images, then renamed. What
a kill leaves is a staging folder, or files that no row speaks of; `leftovers` finds both.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from atoll.domain.entities import Image
from atoll.domain.errors import HostError, NotFound
from atoll.domain.undo import Reverter
from atoll.host import archive, process
from atoll.host.threads import in_thread
from atoll.services.images.model import Candidate, Format

_PREFIX = ".upload-"
_NAME = re.compile(r"([0-9a-f]{64})(\.rootfs)?")
DISCARD_SECONDS = 600.0
"""How long it may take to remove a staging folder."""


@dataclass(frozen=True, slots=True)
class Part:
    """A file of an image to download. `name` is LXD's for the part of a split image, `filename` what to save it as."""

    name: str
    filename: str
    path: Path
    size: int


class ImageFiles:
    """The folder of image files. Whoever changes the files of a fingerprint holds its lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def meta(self, fingerprint: str) -> Path:
        """The image, or of a split one the metadata."""
        return self.folder / fingerprint

    def rootfs(self, fingerprint: str) -> Path:
        """The root file system of a split image."""
        return self.folder / f"{fingerprint}.rootfs"

    def of(self, image: Image) -> tuple[Path, Path | None]:
        """An image's one or two files."""
        split = image.format == Format.SPLIT
        return self.meta(image.fingerprint), self.rootfs(image.fingerprint) if split else None

    async def parts(self, image: Image) -> list[Part]:
        """An image's one or two files as a client downloads them, named by fingerprint and what they are made of."""
        meta, rootfs = self.of(image)
        try:
            if rootfs is None:
                return [await _part("", image.fingerprint, meta)]
            return [
                await _part("metadata", f"meta-{image.fingerprint}", meta),
                await _part("rootfs", image.fingerprint, rootfs),
            ]
        except FileNotFoundError as error:
            raise NotFound(f"The files of image {image.fingerprint[:12]} are not on this server") from error

    async def stage(self) -> Path:
        """A new empty staging folder; none if the caller is cancelled meanwhile."""
        folder = self.folder / f"{_PREFIX}{secrets.token_hex(8)}"
        async with Reverter("stage image files") as undo:
            undo.add(self.discard, folder)
            try:
                await in_thread(folder.mkdir, 0o700)
            except OSError as error:
                raise cannot_store(error) from error
            undo.success()
        return folder

    async def discard(self, folder: Path) -> None:
        """Remove a staging folder; a stranger may have filled it."""
        await process.run(["rm", "-rf", "--one-file-system", "--", str(folder)], timeout=DISCARD_SECONDS)

    @asynccontextmanager
    async def using(self, folder: Path) -> AsyncIterator[Path]:
        """What the block does not take out of the staging folder is removed after it, however it ends."""
        async with Reverter("remove staged image files", step_seconds=DISCARD_SECONDS) as always:
            always.add(self.discard, folder)
            yield folder

    async def present(self, fingerprint: str, kind: Format) -> bool:
        """Whether the files are there."""
        wanted = [self.meta(fingerprint), *([self.rootfs(fingerprint)] if kind is Format.SPLIT else [])]
        return await in_thread(lambda: all(path.is_file() for path in wanted))

    async def link(self, candidate: Candidate, folder: Path) -> Candidate:
        """The same candidate in another staging folder, for a second one to use up."""
        try:
            for path in filter(None, (candidate.meta, candidate.rootfs)):
                await in_thread(os.link, path, folder / path.name)
        except OSError as error:
            raise cannot_store(error) from error
        rootfs = None if candidate.rootfs is None else folder / candidate.rootfs.name
        return replace(candidate, meta=folder / candidate.meta.name, rootfs=rootfs)

    async def install(self, new: Candidate) -> None:
        """Take a candidate's files out of its staging folder into their places."""
        try:
            await in_thread(self._install, new)
        except OSError as error:
            raise cannot_store(error) from error

    def _install(self, new: Candidate) -> None:
        rootfs = self.rootfs(new.fingerprint)
        if new.rootfs is not None:
            new.rootfs.rename(rootfs)
        else:
            rootfs.unlink(missing_ok=True)
        new.meta.rename(self.meta(new.fingerprint))
        self._sync()

    def _sync(self) -> None:
        """Make renames durable before a row speaks of them."""
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    async def remove(self, fingerprint: str) -> None:
        """Remove an image's files; nothing wrong if there are none."""
        await in_thread(self._remove, fingerprint)

    def _remove(self, fingerprint: str) -> None:
        self.meta(fingerprint).unlink(missing_ok=True)
        self.rootfs(fingerprint).unlink(missing_ok=True)

    async def leftovers(self, known: Collection[str]) -> list[Path]:
        """Staging folders, and files of fingerprints that are not known; names that are not ours are left alone. Nothing while
        the volume that the images are on is not there."""
        return await in_thread(self._leftovers, known)

    def _leftovers(self, known: Collection[str]) -> list[Path]:
        found = []
        for path in sorted(self.folder.iterdir()) if self.folder.is_dir() else ():
            match = _NAME.fullmatch(path.name)
            if path.name.startswith(_PREFIX) or (match is not None and match[1] not in known):
                found.append(path)
        return found


async def _part(name: str, stem: str, path: Path) -> Part:
    kind = await archive.identify(path)
    return Part(name, f"{stem}.{kind.value}", path, (await in_thread(path.stat)).st_size)


def cannot_store(error: OSError) -> HostError:
    """The host has no room, or its disk fails."""
    return HostError(f"Cannot store the image: {error.strerror or error}")
