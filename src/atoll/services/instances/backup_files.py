"""The files of backups: `instances/KEY/NAME` and `custom/POOL/KEY/NAME` in the folder of backups, and hidden folders beside them,
in which new ones are made. What is uploaded to be imported is in hidden folders of the folder of backups itself.

A backup appears whole, by a rename, after it was flushed. What a kill leaves is a hidden folder, or a file whose record says that
something was being done to it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import ParamSpec

from atoll.domain.errors import HostError, NotFound
from atoll.domain.paths import Paths
from atoll.domain.undo import Reverter
from atoll.host import confined
from atoll.host.threads import in_thread
from atoll.services import budgets
from atoll.services.intake import Chunks, Intake

P = ParamSpec("P")

_MAKING, _IMPORT = ".making-", ".import-"
ARCHIVE = "archive"
"""The file in a hidden folder that becomes the backup."""
UPLOAD = "upload"
"""The file in a hidden folder that a client sent."""


class BackupFiles:
    """Files of one kind of owners ("instances", "custom"), by the owner's key and the backup's name."""

    def __init__(self, paths: Paths, kind: str = "instances") -> None:
        self._paths = paths
        self._kind = kind

    def folder(self, key: str) -> Path:
        """Where an owner's backups are."""
        return self._paths.backups / self._kind / key

    def path(self, key: str, name: str) -> Path:
        """Where a backup is."""
        return self.folder(key) / name

    async def stage(self, key: str) -> Path:
        """A new hidden folder. HostError if there is no room for it."""
        folder = self.folder(key) / f"{_MAKING}{secrets.token_hex(8)}"
        await self._try("make a backup", _make, folder)
        return folder

    async def receive(self) -> Path:
        """A new hidden folder for what a client sends. HostError if there is no room for it."""
        folder = self._paths.backups / f"{_IMPORT}{secrets.token_hex(8)}"
        await self._try("take in a backup", folder.mkdir, 0o700)
        return folder

    @asynccontextmanager
    async def received(self, what: str, chunks: Chunks) -> AsyncIterator[Path]:
        """`receive`, with what is sent in it as UPLOAD; it goes if that or the block fails. `what` it is, in messages. For errors
        see `Intake.take`."""
        folder = await self.receive()
        async with Reverter(f"import a {what}", step_seconds=600.0) as undo:
            undo.add(self.discard, folder)
            await Intake(what, await budgets.of_folder(folder)).take(chunks, folder / UPLOAD)
            yield folder
            undo.success()

    async def discard(self, folder: Path) -> None:
        """Remove a hidden folder, which may hold a stranger's tree; the owner's with it if that has nothing else."""
        await in_thread(_discard, folder)

    @asynccontextmanager
    async def using(self, folder: Path) -> AsyncIterator[None]:
        """The hidden folder goes when the block is left."""
        async with Reverter("remove a backup's folder", step_seconds=600.0) as always:
            always.add(self.discard, folder)
            yield

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
        """Nothing wrong if it is gone. With the last one the owner's folder goes."""
        await self._try("remove a backup", _remove, self.path(key, name))

    async def remove_owner(self, key: str) -> None:
        """The owner's folder, which a kill may have left empty."""
        await in_thread(_remove_if_empty, self.folder(key))

    async def rename_owner(self, key: str, new: str) -> None:
        """All backups of an owner are another's. Nothing wrong if there are none."""
        await self._try("rename backups", _move_folder, self.folder(key), self.folder(new))

    async def leftovers(self, keys: Collection[str]) -> list[Path]:
        """Hidden folders: of these instances, and of imports."""
        return await in_thread(self._leftovers, keys)

    def _leftovers(self, keys: Collection[str]) -> list[Path]:
        making = [each for key in keys for each in self.folder(key).glob(f"{_MAKING}*")]
        return [*making, *self._paths.backups.glob(f"{_IMPORT}*")]

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


def _make(folder: Path) -> None:
    """With the folders above it that are missing, for root alone."""
    for each in (*reversed(folder.parents), folder):
        each.mkdir(0o700, exist_ok=True)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    _remove_if_empty(path.parent)


def _discard(folder: Path) -> None:
    confined.remove_tree(folder)
    if folder.name.startswith(_MAKING):
        _remove_if_empty(folder.parent)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):  # backups are there, or just being made; or it is gone
        folder.rmdir()


def _move_folder(source: Path, target: Path) -> None:
    if source != target and source.is_dir():
        _make(target.parent)
        source.rename(target)
