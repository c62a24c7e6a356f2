"""One download shared by all requests for the same image of the same server at the same time.

The first who asks begins it; it ends when it is whole, fails, or nobody wants it any more. So whoever is cancelled, the others
get their image, and a failure is told to all of them. Each gets files of its own (hard links): what one does with them is nothing
to the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from atoll.domain.undo import Reverter
from atoll.services.images import candidates, fetch
from atoll.services.images.fetch import Report
from atoll.services.images.files import DISCARD_SECONDS, ImageFiles
from atoll.services.images.model import Candidate, Staged
from atoll.services.images.sources import Found

Fetch = Callable[[ImageFiles, Found, Report], Awaitable[Staged]]


@dataclass(slots=True)
class _Running:
    """A download with those who wait for it."""

    task: asyncio.Task[Candidate]
    reports: list[Report] = field(default_factory=list)
    last: str = ""


class Downloads:
    """Downloads under way, by what they are of."""

    def __init__(self, files: ImageFiles, fetch_image: Fetch = fetch.image) -> None:
        self._files = files
        self._fetch = fetch_image
        self._running: dict[tuple[str, ...], _Running] = {}

    @asynccontextmanager
    async def join(self, found: Found, report: Report) -> AsyncIterator[Candidate]:
        """The image, whole and valid, while the block runs. Fails as `fetch.image` and `candidates.received` do."""
        running = self._running.get(found.key)
        if running is None:
            running = self._begin(found)
        async with Reverter("leave a download", step_seconds=DISCARD_SECONDS) as always:
            always.add(self._leave, found, running, report)
            running.reports.append(report)
            if running.last:
                report(running.last)
            candidate = await asyncio.shield(running.task)
            folder = await self._files.stage()
            always.add(self._files.discard, folder)
            yield await self._files.link(candidate, folder)

    def _begin(self, found: Found) -> _Running:
        def tell(text: str) -> None:
            running.last = text
            for report in running.reports:
                report(text)

        async def work() -> Candidate:
            staged = await self._fetch(self._files, found, tell)
            async with Reverter("check a download", step_seconds=DISCARD_SECONDS) as undo:
                undo.add(self._files.discard, staged.folder)
                candidate = await candidates.received(staged)
                undo.success()
            return candidate

        running = _Running(asyncio.create_task(work(), name=f"download of image {found.fingerprint[:12]}"))
        self._running[found.key] = running
        return running

    async def _leave(self, found: Found, running: _Running, report: Report) -> None:
        """Whoever leaves last cancels the download if it still runs, and removes its files."""
        running.reports.remove(report)
        if running.reports:
            return
        if self._running.get(found.key) is running:
            del self._running[found.key]
        running.task.cancel()
        await asyncio.wait([running.task])
        if not running.task.cancelled() and running.task.exception() is None:
            await self._files.discard(running.task.result().meta.parent)
