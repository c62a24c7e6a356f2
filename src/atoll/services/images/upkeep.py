"""What the server does for its images by itself: newer versions are fetched, and cached ones that nobody uses go.

`images.auto_update_interval` (hours, 0: never) and `images.remote_cache_expiry` (days, 0: never) of each project, or else of
the server. Both run at the daemon's start too; a shorter expiry of the server takes effect at once, of a project within a minute.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

from atoll.db import images as rows
from atoll.db.engine import Database
from atoll.domain.caller import DAEMON
from atoll.domain.entities import Image
from atoll.domain.errors import AtollError
from atoll.services.images.pull import ImagePuller
from atoll.services.images.rules import ImageRules
from atoll.services.images.service import ImageService
from atoll.services.operations import Operation, OperationRegistry, OperationSpec, Work
from atoll.services.settings import SettingsService

log = logging.getLogger(__name__)

_DAY, _HOUR = 86400, 3600
T = TypeVar("T")


class ImageUpkeep:
    """Use cases of upkeep; `tick` is called once a minute."""

    def __init__(
        self,
        database: Database,
        images: ImageService,
        puller: ImagePuller,
        operations: OperationRegistry,
        settings: SettingsService,
        rules: ImageRules,
    ) -> None:
        self._database = database
        self._images = images
        self._puller = puller
        self._operations = operations
        self._rules = rules
        self._updated: dict[str, float] = {}
        self._expired: dict[str, tuple[int, float]] = {}
        self._turn = asyncio.Lock()
        self._nudged: asyncio.Task[None] | None = None
        settings.on_commit(self._nudge)

    def _nudge(self) -> None:
        """The configuration changed: do now what is due by it."""
        if self._expired and (self._nudged is None or self._nudged.done()):
            self._nudged = asyncio.create_task(self.tick(), name="upkeep of images")

    async def tick(self, _: Sequence[datetime] = ()) -> None:
        """Do what is due."""
        async with self._turn:
            now = time.monotonic()
            days: dict[str, int] = await self._rules.by_project("images.remote_cache_expiry")
            late = {project: count for project, count in days.items() if self._is_late(project, count, now)}
            self._expired = {**_still(self._expired, days), **{project: (count, now) for project, count in late.items()}}
            await self.expire(late)
            hours: dict[str, int] = await self._rules.by_project("images.auto_update_interval")
            due = [project for project, every in hours.items() if every and self._is_due(project, every, now)]
            self._updated = {**_still(self._updated, hours), **dict.fromkeys(due, now)}
            await self.update(due)

    def _is_late(self, project: str, days: int, now: float) -> bool:
        """Whether to look for unused images: once an hour, and when the number of days is another than the last time."""
        known, moment = self._expired.get(project, (-1, 0.0))
        return days != known or now - moment >= _HOUR

    def _is_due(self, project: str, hours: int, now: float) -> bool:
        """Whether to look for newer versions."""
        return project not in self._updated or now - self._updated[project] >= hours * _HOUR

    async def expire(self, days: Mapping[str, int]) -> None:
        """Of each of the projects, remove cached images whose own time is over, or that no instance was made of for so many days;
        0: however long that is."""
        now = time.time()
        async with self._database.read() as tx:
            cached = [image for image in await rows.find_all(tx) if image.cached and image.project in days]
        due = [image for image in cached if _is_over(image, days[image.project], now)]
        if not due:
            return

        async def work(_: Operation) -> None:
            for image in due:
                try:
                    await self._images.delete(image.project, image, caller=DAEMON)
                except AtollError as error:
                    log.warning("The unused image %s stays: %s", image.fingerprint[:12], error)

        await self._run("Expiring images", work)

    async def update(self, projects: Collection[str]) -> None:
        """Look for newer versions of all images of those projects that are to be kept up to date, one after the other."""
        async with self._database.read() as tx:
            found = [image for image in await rows.find_all(tx) if image.auto_update and image.source is not None]
        watched = [image for image in found if image.project in projects]
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


def _is_over(image: Image, days: int, now: float) -> bool:
    """Whether a cached image goes: what comes first, as in LXD."""
    unused = now - (image.last_use_date or image.upload_date)
    return 0 < image.expiry_date <= now or 0 < days * _DAY < unused


def _still(known: Mapping[str, T], projects: Collection[str]) -> dict[str, T]:
    """The entries of projects that still exist."""
    return {project: value for project, value in known.items() if project in projects}
