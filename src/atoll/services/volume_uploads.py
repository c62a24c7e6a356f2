"""Custom volumes made of a file that a client sends: a volume's backup, an ISO image, or a tar archive of any files.

The file is taken in to a hidden folder that goes with the operation's end; one that a kill leaves goes on the next start, and the
half-made volume with it, for its row says that it is being created (`VolumeService.repair`).
"""

from __future__ import annotations

import functools
from enum import StrEnum
from pathlib import Path

from atoll.db import storage as rows
from atoll.db.engine import Database
from atoll.domain import names
from atoll.domain.caller import Caller
from atoll.domain.content_types import ContentType
from atoll.domain.errors import BadRequest, TooLarge
from atoll.domain.paths import Paths
from atoll.drivers.storage import blocking
from atoll.drivers.storage.contract import Fill, StorageDriver
from atoll.host import archive_backup, disk_image
from atoll.host.threads import in_thread
from atoll.services import budgets
from atoll.services.instances.backup_files import UPLOAD, BackupFiles
from atoll.services.intake import Chunks
from atoll.services.operations import Operation, OperationRegistry, OperationSpec
from atoll.services.storage import StorageService
from atoll.services.volume_backup_import import VolumeImporter, Wish
from atoll.services.volume_backups import KIND
from atoll.services.volume_contents import volume_id
from atoll.services.volume_urls import volume_url
from atoll.services.volumes import CUSTOM, NewVolume, VolumeService


class FileKind(StrEnum):
    """What a file is, in the word of clients."""

    BACKUP = "backup"
    ISO = "iso"
    TAR = "tar"


class VolumeUploads:
    """The use case of making a volume of a file."""

    def __init__(
        self,
        database: Database,
        paths: Paths,
        storage: StorageService,
        volumes: VolumeService,
        backups: VolumeImporter,
        operations: OperationRegistry,
    ) -> None:
        self._database = database
        self._storage = storage
        self._volumes = volumes
        self._backups = backups
        self._operations = operations
        self._files = BackupFiles(paths, KIND)

    async def start(self, kind: FileKind, wish: Wish, chunks: Chunks, *, caller: Caller) -> Operation:
        """Take in the file, and return the operation that makes a volume of it. A bad or taken name is refused before that."""
        if kind is FileKind.BACKUP:
            return await self._backups.start(wish, chunks, caller=caller)
        if not wish.name:
            raise BadRequest("Missing volume name")
        names.volume(wish.name)
        async with self._database.read() as tx:
            await rows.pool(tx, wish.pool)
        await self._volumes.require_absent(wish.pool, await self._volumes.owner(wish.project), wish.name)
        async with self._files.received("file", chunks) as folder:
            return self._start(kind, wish, folder, caller=caller)

    def _start(self, kind: FileKind, wish: Wish, folder: Path, *, caller: Caller) -> Operation:
        make = self._make_iso if kind is FileKind.ISO else self._make_tree

        async def work(_: Operation) -> None:
            async with self._files.using(folder):
                await make(wish, folder / UPLOAD, caller)

        resources = {"storage_volumes": [volume_url(wish.pool, CUSTOM, wish.name, wish.project)]}
        spec = OperationSpec("Creating storage volume", work, project=wish.project, resources=resources, caller=caller)
        return self._operations.start(spec)

    async def _make_iso(self, wish: Wish, file: Path, caller: Caller) -> None:
        size = (await in_thread(file.stat)).st_size
        if not size:
            raise BadRequest("The file is empty")
        if size > (await budgets.of_pool(self._driver(wish))).bytes:
            raise TooLarge("The file is larger than what is free in the storage pool")

        async def fill(data: Path) -> None:
            await blocking.call("store the file", disk_image.put, file, data)

        new = NewVolume(wish.pool, wish.project, wish.name, config={"size": str(size)}, content_type=ContentType.ISO)
        await self._make(new, fill, caller)

    async def _make_tree(self, wish: Wish, file: Path, caller: Caller) -> None:
        budget = await budgets.of_pool(self._driver(wish))
        fill = functools.partial(archive_backup.unpack_tree, file, budget=budget)
        await self._make(NewVolume(wish.pool, wish.project, wish.name), fill, caller)

    async def _make(self, new: NewVolume, fill: Fill, caller: Caller) -> None:
        async with self._volumes.creating(new, caller=caller) as volume:
            await self._storage.driver(volume.pool).create(volume_id(volume), fill)
            await self._volumes.contents.settle(volume)

    def _driver(self, wish: Wish) -> StorageDriver:
        return self._storage.driver(wish.pool)
