"""Taking images of other servers into the store: for their own sake, for an instance, or as a newer version of one here."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable

from atoll.domain.caller import Caller
from atoll.domain.entities import Image
from atoll.domain.errors import NotFound
from atoll.services.images.downloads import Downloads
from atoll.services.images.model import Candidate, Wishes
from atoll.services.images.rules import ImageRules
from atoll.services.images.service import ImageService
from atoll.services.images.sources import Found, ImageSources, Source
from atoll.services.locks import KeyedLocks
from atoll.services.operations import Operation

log = logging.getLogger(__name__)

PROGRESS = "download_progress"


class ImagePuller:
    """Downloads each image once, however many ask for it at the same time."""

    def __init__(self, images: ImageService, sources: ImageSources, rules: ImageRules) -> None:
        self._images = images
        self._sources = sources
        self._rules = rules
        self._downloads = Downloads(images.files)
        self._adding = KeyedLocks()

    async def pull(self, project: str, source: Source, wishes: Wishes, operation: Operation, *, caller: Caller) -> dict[str, str]:
        """As an image of the project. One that it has already is what was asked for, and gets what is wished of it; one that was
        only cached for instances becomes a whole one. Returns the operation's metadata."""
        found = await self._look(project, source)
        wishes = dataclasses.replace(wishes, source=source.record)
        image, is_new = await self._obtain(project, found, wishes, operation, caller=caller)
        if not is_new:
            return await self._images.keep(project, image.fingerprint, wishes, caller=caller)
        return {"fingerprint": image.fingerprint, "size": str(image.size)}

    async def for_instance(self, project: str, source: Source, operation: Operation, *, caller: Caller) -> Image:
        """The image of the project, downloaded and cached if it is not there.

        One that is cached under the same name and kept up to date is taken as it is, unasked: see `ImageUpkeep`.
        """
        source.check()
        if (
            source.alias
            and await self._rules.get(project, "images.auto_update_interval")
            and (cached := await self._images.find_cached(project, source.record)) is not None
        ):
            return cached
        found = await self._look(project, source)
        wishes = Wishes(cached=True, auto_update=await self._keeps_up(project, source), source=source.record)
        image, _ = await self._obtain(project, found, wishes, operation, caller=caller)
        return image

    async def refresh(self, project: str, image: Image, operation: Operation, *, caller: Caller, at_once: bool = False) -> bool:
        """Replace an image by the newer version that its source has. Returns whether there was one. `at_once`: ask the source
        now, do not use what it said minutes ago."""
        known = image.source
        if known is None:
            return False
        source = Source(known.server, known.protocol, alias=known.alias, certificate=known.certificate, project=known.project)
        found = await self._sources.look(source, architecture=image.architecture, at_once=at_once)
        if found.fingerprint == image.fingerprint:
            return False
        wishes = Wishes(filename=image.filename, auto_update=image.auto_update, cached=image.cached, source=known)
        newer, is_new = await self._obtain(project, found, wishes, operation, caller=caller)
        await self._images.supersede(project, image, newer, is_new=is_new, caller=caller)
        log.info("Image %s was replaced by %s", image.fingerprint[:12], newer.fingerprint[:12])
        return True

    async def _look(self, project: str, source: Source) -> Found:
        preferred = await self._rules.get(project, "images.default_architecture")
        return await self._sources.look(source, architecture=preferred or "")

    async def _keeps_up(self, project: str, source: Source) -> bool:
        """Whether a cached image is to be kept up to date: only a name can mean a newer one."""
        return bool(source.alias) and bool(await self._rules.get(project, "images.auto_update_cached"))

    async def _obtain(
        self, project: str, found: Found, wishes: Wishes, operation: Operation, *, caller: Caller
    ) -> tuple[Image, bool]:
        """(the project's image, whether it is new there)"""
        present = await self._present(project, found.fingerprint)
        if present is not None:
            return present, False
        wishes = _completed(wishes, found)
        async with self._downloads.join(found, _report(operation)) as candidate, self._adding.hold(found.fingerprint):
            present = await self._present(project, found.fingerprint)
            if present is not None:
                return present, False
            await self._images.add(project, _as_recorded(candidate, found), wishes, caller=caller)
            return await self._images.find(project, found.fingerprint), True

    async def _present(self, project: str, fingerprint: str) -> Image | None:
        try:
            return await self._images.find(project, fingerprint)
        except NotFound:
            return None


def _completed(wishes: Wishes, found: Found) -> Wishes:
    """The wishes, with what the source says of the image where nothing is wished."""
    if found.stream is not None:
        return dataclasses.replace(wishes, expires_at=wishes.expires_at or found.stream.expires_at)
    if found.record is not None:
        filename, expires_at = wishes.filename or found.record.filename, wishes.expires_at or found.record.expires_at
        return dataclasses.replace(wishes, filename=filename, expires_at=expires_at)
    return wishes


def _as_recorded(candidate: Candidate, found: Found) -> Candidate:
    """With the properties that it has where it comes from, in place of those it was made with, as in LXD."""
    told = found.stream or found.record
    if told is None or told.properties is None:
        return candidate
    return dataclasses.replace(candidate, metadata=dataclasses.replace(candidate.metadata, properties=told.properties))


def _report(operation: Operation) -> Callable[[str], None]:
    return lambda text: operation.progress(PROGRESS, text)
