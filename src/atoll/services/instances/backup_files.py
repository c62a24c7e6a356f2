"""The files of backups: `instances/KEY/NAME` in the folder of backups, and hidden folders beside them in which new ones are made.

A backup appears whole, by a rename, after it was flushed. What a kill leaves is a hidden folder, or a file whose record says that
something was being done to it.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import ParamSpec

from atoll.domain.errors import HostError, NotFound
from atoll.domain.paths import Paths
from atoll.host.threads import in_thread

P = ParamSpec("P")

_MAKING = ".making-"
ARCHIVE = "archive"
"""The file in a hidden folder that becomes the backup."""


class BackupFiles:
    """Files by an instance's key and a backup's name."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def path(self, key: str, name: str) -> Path:
        """Where a backup is."""
        return self._paths.instance_backups(key) / name

    async def stage(self, key: str) -> Path:
        """A new hidden folder. HostError if there is no room for it."""
        folder = self._paths.instance_backups(key) / f"{_MAKING}{secrets.token_hex(8)}"
        await self._try("make a backup", folder.mkdir, 0o700, parents=True)
        return folder

    async def discard(self, folder: Path) -> None:
        """Remove a hidden folder; all in it is the daemon's own."""
        await in_thread(shutil.rmtree, folder, ignore_errors=True)

    async def publish(self, folder: Path, key: str, name: str) -> None:
        """Put a finished archive in its place, for good."""
        await self._try("store a backup", _move, folder / ARCHIVE, self.path(key, name))

    async def rename(self, key: str, name: str, new: str) -> None:
        """Nothing wrong if it is done already. NotFound if there is no such file."""
        old, target = self.path(key, name), self.path(key, new)
        if not await in_thread(old.exists):
            if not await in_thread(target.exists):
                raise NotFound(f"The file of backup {name!r} is not on this server")
            return
        await self._try("rename a backup", _move, old, target)

    async def remove(self, key: str, name: str) -> None:
        """Nothing wrong if it is gone."""
        await self._try("remove a backup", lambda: self.path(key, name).unlink(missing_ok=True))

    async def leftovers(self, keys: Collection[str]) -> list[Path]:
        """Hidden folders of these instances."""
        return await in_thread(lambda: [each for key in keys for each in self._paths.instance_backups(key).glob(f"{_MAKING}*")])

    @staticmethod
    async def _try(what: str, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            await in_thread(function, *args, **kwargs)
        except OSError as error:
            raise HostError(f"Cannot {what}: {error.strerror or error}") from error


def _move(source: Path, target: Path) -> None:
    source.rename(target)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
