"""Where the daemon keeps its backups and images: its own folders, or custom volumes that the settings name.

`storage.backups_volume` and `storage.images_volume` are POOL/VOLUME of project default. Setting one moves what is there,
unsetting it brings it home; the folder keeps its path, as a link to the volume. `host.relocate` tells how a kill in between
is healed.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from atoll.domain.entities import DEFAULT_PROJECT
from atoll.domain.errors import AtollError, BadRequest, HostError, NotFound
from atoll.domain.paths import Paths
from atoll.domain.undo import Reverter
from atoll.drivers.storage.contract import VolumeId, VolumeKind
from atoll.host import folders, relocate, trees
from atoll.host.threads import in_thread
from atoll.services.settings import SettingsService
from atoll.services.storage import StorageService
from atoll.services.volumes import VolumeService

log = logging.getLogger(__name__)

_BUSY = (".upload-", ".making-")
"""What the names of half-made images and backups begin with."""

_MOVE_SECONDS = 6 * 3600.0


class DaemonStorage:
    """Moves the folders when the settings change."""

    def __init__(self, paths: Paths, settings: SettingsService, storage: StorageService, volumes: VolumeService) -> None:
        self._paths = paths
        self._settings = settings
        self._storage = storage
        self._volumes = volumes
        self._folders = {"storage.backups_volume": paths.backups, "storage.images_volume": paths.images}
        settings.around_change("storage.", self._around)

    def volumes_in_use(self) -> frozenset[tuple[str, str]]:
        """(pool, volume) of project default that the daemon keeps something on."""
        named = (self._settings.text(key) for key in self._folders)
        return frozenset((text.split("/")[0], text.split("/")[1]) for text in named if text)

    async def start(self) -> None:
        """After the pools were opened: heal what a kill left half moved, and make what is missing in the folders."""
        for sentence in await self.repair():
            log.warning("Repaired: %s", sentence)
        await in_thread(folders.make_kept, self._paths)

    async def repair(self, pool: str | None = None) -> list[str]:
        """On start, and when a pool that was away is back: heal what a kill left half moved. One sentence for each."""
        done = []
        for key, folder in self._folders.items():
            value = self._settings.text(key)
            if pool is not None and value.split("/")[0] != pool:
                continue
            try:
                if await in_thread(relocate.settle, folder, self._place(value)):
                    done.append(f"moving {folder} had been cut off")
            except (OSError, AtollError) as error:
                log.error("The folder %s is not usable: %s", folder, error)
        return done

    @asynccontextmanager
    async def _around(self, changes: Mapping[str, str]) -> AsyncIterator[None]:
        """Around the commit: before it content and path are moved, after it the old place is cleared."""
        chosen = [value for value in changes.values() if value]
        if len(set(chosen)) != len(chosen):
            raise BadRequest("Backups and images cannot be kept on the same volume")
        async with AsyncExitStack() as stack:
            for key, value in changes.items():
                if key in self._folders:
                    await stack.enter_async_context(self._moved(key, value))
            yield

    @asynccontextmanager
    async def _moved(self, key: str, value: str) -> AsyncIterator[None]:
        folder, old = self._folders[key], self._place(self._settings.text(key))
        async with AsyncExitStack() as stack:
            if value:
                await stack.enter_async_context(self._volume_for(key, value))
            new = self._place(value)
            async with Reverter(f"move {folder}", step_seconds=_MOVE_SECONDS) as undo:
                await in_thread(relocate.refuse_busy, folder, _BUSY)
                undo.add(in_thread, relocate.settle, folder, old)
                await self._move(folder, new)
                yield
                undo.success()
            await in_thread(relocate.settle, folder, new)

    async def _move(self, folder: Path, target: Path | None) -> None:
        try:
            await in_thread(relocate.prepare, folder, target)
            await trees.copy_still(await in_thread(folder.resolve), await in_thread(relocate.beside(folder).resolve))
            await in_thread(relocate.begin, folder, busy=_BUSY)
        except OSError as error:
            raise HostError(f"Cannot move {folder}: {error.strerror or error}") from error

    @asynccontextmanager
    async def _volume_for(self, key: str, value: str) -> AsyncIterator[None]:
        """The volume, empty, and not to be changed by others while the block runs. BadRequest if it cannot be used."""
        pool, name = value.split("/")
        try:
            async with self._volumes.claimed(pool, name) as data:
                if await in_thread(lambda: any(entry.name != "lost+found" for entry in data.iterdir())):
                    raise BadRequest(f"Failed validation of {key!r}: Storage volume {value!r} isn't empty")
                yield
        except NotFound as error:
            raise BadRequest(f"Failed validation of {key!r}: Failed loading storage volume {value!r}: {error.message}") from error

    def _place(self, value: str) -> Path | None:
        """The data folder of a volume that the settings name; None for the daemon's own folder."""
        if not value:
            return None
        pool, name = value.split("/")
        return self._storage.driver(pool).data(VolumeId(VolumeKind.CUSTOM, DEFAULT_PROJECT, name))
