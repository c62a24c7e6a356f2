"""What the server does for its images by itself: newer versions are fetched, and cached ones that nobody uses go.

`images.auto_update_interval` (hours, 0 for never), `images.remote_cache_expiry` (days, 0 for never). Both run at the daemon's
start too; a shorter expiry takes effect at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from datetime import datetime

from atoll.db import images as rows
from atoll.db.engine import Database
from atoll.domain.caller import DAEMON
from atoll.domain.entities import Image
from atoll.domain.errors import AtollError
from atoll.services.images.pull import ImagePuller
from atoll.services.images.service import ImageService
from atoll.services.operations import Operation, OperationRegistry, OperationSpec, Work
from atoll.services.settings import SettingsService

log = logging.getLogger(__name__)

_DAY, _HOUR = 86400, 3600


class ImageUpkeep:
    """Use cases of upkeep; `tick` is called once a minute."""

    def __init__(
        self,
        database: Database,
        images: ImageService,
        puller: ImagePuller,
        operations: OperationRegistry,
        settings: SettingsService,
    ) -> None:
        self._database = database
        self._images = images
        self._puller = puller
        self._operations = operations
        self._settings = settings
        self._updated = self._expired = float("-inf")
        self._days = -1
        self._turn = asyncio.Lock()
        self._nudged: asyncio.Task[None] | None = None
        settings.on_commit(self._nudge)

    def _nudge(self) -> None:
        """The configuration changed: what it makes due is not kept waiting."""
        if self._days >= 0 and (self._nudged is None or self._nudged.done()):
            self._nudged = asyncio.create_task(self.tick(), name="upkeep of images")

    async def tick(self, _: Sequence[datetime] = ()) -> None:
        """Do what is due."""
        async with self._turn:
            now = time.monotonic()
            days: int = self._settings.get("images.remote_cache_expiry")
            if days != self._days or now - self._expired >= _HOUR:
                self._days, self._expired = days, now
                await self.expire(days)
            hours: int = self._settings.get("images.auto_update_interval")
            if hours and now - self._updated >= hours * _HOUR:
                self._updated = now
                await self.update()

    async def expire(self, days: int) -> None:
        """Remove cached images that no instance was made of for so many days; 0: none."""
        oldest = time.time() - days * _DAY
        async with self._database.read() as tx:
            cached = [image for image in await rows.find_all(tx) if image.cached]
        due = [image for image in cached if days and (image.last_use_date or image.upload_date) < oldest]
        if not due:
            return

        async def work(_: Operation) -> None:
            for image in due:
                try:
                    await self._images.delete(image.project, image, caller=DAEMON)
                except AtollError as error:
                    log.warning("The unused image %s stays: %s", image.fingerprint[:12], error)

        await self._run("Expiring images", work)

    async def update(self) -> None:
        """Look for newer versions of all images that are to be kept up to date, one after the other."""
        async with self._database.read() as tx:
            watched = [image for image in await rows.find_all(tx) if image.auto_update and image.source is not None]
        if not watched:
            return

        async def work(operation: Operation) -> None:
            for image in watched:
                await self._refresh(image, operation)

        await self._run("Updating images", work)

    async def _refresh(self, image: Image, operation: Operation) -> None:
        try:
            await self._puller.refresh(image.project, image, operation, caller=DAEMON)
        except AtollError as error:
            log.warning("No newer version of image %s could be looked for: %s", image.fingerprint[:12], error)

    async def _run(self, description: str, work: Work) -> None:
        """As an operation of no project, which administrators see."""
        await self._operations.start(OperationSpec(description, work, project="", caller=DAEMON)).wait()
