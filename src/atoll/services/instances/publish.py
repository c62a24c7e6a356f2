"""What a new image is made of: the files and metadata of an instance or of a snapshot."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from atoll.domain import image_metadata
from atoll.domain.entities import Instance
from atoll.domain.errors import BadRequest, NotFound
from atoll.domain.image_metadata import ImageMetadata
from atoll.host import confined
from atoll.host.threads import in_thread
from atoll.services.images.jobs import Publishable
from atoll.services.instances.core import InstanceCore


class PublishSources:
    """Opens instances and snapshots for `ImageJobs.publish`."""

    def __init__(self, core: InstanceCore) -> None:
        self._core = core

    @asynccontextmanager
    async def open(self, project: str, name: str, snapshot: str) -> AsyncIterator[Publishable]:
        """See `images.jobs.PublishSource`. An instance cannot be started, a snapshot not be removed meanwhile."""
        machine = (await self._core.load(project, name)).machine
        async with AsyncExitStack() as stack:
            if snapshot:
                await stack.enter_async_context(self._core.hold_snapshot(machine, snapshot))
                loaded, _ = await self._core.load_snapshot(project, name, snapshot)
            else:
                await stack.enter_async_context(self._core.hold(machine))
                loaded = await self._core.load(project, name)
                if self._core.status(loaded.record).is_running:
                    raise BadRequest("The instance is running", hint="stop it, or publish a snapshot of it")
            volume = loaded.volume.at(snapshot) if snapshot else loaded.volume
            driver = self._core.storage.driver(loaded.pool)
            if not snapshot:
                await driver.unmount(volume)  # a start that was cut off may have left it mounted with shifted ids
            rootfs = await stack.enter_async_context(driver.open_rootfs(volume))
            yield Publishable(await in_thread(_metadata, driver.data(volume), loaded.record), rootfs, driver.data(volume))


def _metadata(data: Path, record: Instance) -> bytes:
    """The metadata that came with the instance's image; that of an instance without image is made up. Blocks."""
    try:
        return confined.read(data, "metadata.yaml", limit=image_metadata.MAX_BYTES)
    except NotFound:
        made = ImageMetadata(
            architecture=record.architecture,
            creation_date=int(time.time()),
            properties={"architecture": record.architecture, "name": record.name},
        )
        return image_metadata.dump(made)
