"""Taking images of other servers into the store: for their own sake, for an instance, or as a newer version of one here."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable

from atoll.domain.caller import Caller
from atoll.domain.entities import Image
from atoll.domain.errors import Conflict, NotFound
from atoll.services.images import candidates
from atoll.services.images.model import Wishes
from atoll.services.images.service import ImageService
from atoll.services.images.sources import Found, ImageSources, Source
from atoll.services.locks import KeyedLocks
from atoll.services.operations import Operation
from atoll.services.settings import SettingsService

log = logging.getLogger(__name__)

PROGRESS = "download_progress"


class ImagePuller:
    """Downloads each image once, however many ask for it at the same time."""

    def __init__(self, images: ImageService, sources: ImageSources, settings: SettingsService) -> None:
        self._images = images
        self._sources = sources
        self._settings = settings
        self._downloads = KeyedLocks()

    async def pull(self, project: str, source: Source, wishes: Wishes, operation: Operation, *, caller: Caller) -> dict[str, str]:
        """As an image of the project. Conflict if it has it; one that was only cached for instances becomes a whole one."""
        found = await self._sources.look(source)
        async with self._downloads.hold(found.fingerprint):
            present = await self._present(project, found.fingerprint)
            if present is not None and not present.cached:
                raise Conflict("Image with same fingerprint already exists")
            if present is not None:
                return await self._images.keep(present, wishes, caller=caller)
            wishes = dataclasses.replace(wishes, source=source.record)
            return await self._download(project, found, wishes, operation, caller=caller)

    async def for_instance(self, project: str, source: Source, operation: Operation, *, caller: Caller) -> Image:
        """The image of the project, downloaded and cached if it is not there.

        One that is cached under the same name and kept up to date is taken as it is, unasked: see `ImageUpkeep`.
        """
        source.check()
        if source.alias and (cached := await self._images.find_cached(project, source.record)) is not None:
            return cached
        found = await self._sources.look(source)
        async with self._downloads.hold(found.fingerprint):
            present = await self._present(project, found.fingerprint)
            if present is None:
                wishes = Wishes(cached=True, auto_update=self._keeps_up(source), source=source.record)
                await self._download(project, found, wishes, operation, caller=caller)
                present = await self._images.find(project, found.fingerprint)
        return present

    async def refresh(self, project: str, image: Image, operation: Operation, *, caller: Caller) -> bool:
        """Replace an image by the newer version that its source has; whether there was one."""
        known = image.source
        if known is None:
            return False
        source = Source(known.server, known.protocol, alias=known.alias, certificate=known.certificate)
        found = await self._sources.look(source)
        if found.fingerprint == image.fingerprint:
            return False
        async with self._downloads.hold(found.fingerprint):
            if await self._present(project, found.fingerprint) is None:
                wishes = Wishes(
                    filename=image.filename, public=image.public, auto_update=image.auto_update, profiles=image.profiles,
                    cached=image.cached, source=known,
                )  # fmt: skip
                await self._download(project, found, wishes, operation, caller=caller)
            newer = await self._images.find(project, found.fingerprint)
        await self._images.supersede(project, image, newer, caller=caller)
        log.info("Image %s was replaced by %s", image.fingerprint[:12], newer.fingerprint[:12])
        return True

    def _keeps_up(self, source: Source) -> bool:
        """Whether a cached image is to be kept up to date: only a name can mean a newer one."""
        return bool(source.alias) and self._settings.flag("images.auto_update_cached")

    async def _present(self, project: str, fingerprint: str) -> Image | None:
        try:
            return await self._images.find(project, fingerprint)
        except NotFound:
            return None

    async def _download(
        self, project: str, found: Found, wishes: Wishes, operation: Operation, *, caller: Caller
    ) -> dict[str, str]:
        staged = await self._sources.fetch(found, _report(operation))
        async with self._images.files.using(staged.folder):
            candidate = await candidates.received(staged)
            if found.stream is not None:
                wishes = dataclasses.replace(
                    wishes,
                    properties={**found.stream.properties, **(wishes.properties or {})},
                    expires_at=wishes.expires_at or found.stream.expires_at,
                )
            return await self._images.add(project, candidate, wishes, caller=caller)


def _report(operation: Operation) -> Callable[[str], None]:
    return lambda text: operation.progress(PROGRESS, text)
