"""Keeps `backup.yaml` in the folder of each instance's volume: what the instance is known by when the database is gone.

It follows the events that tell of changes, a moment later and once for all that come together, so that nothing waits for it;
2 ms of processor time for an instance without snapshots. Snapshots that come, go or change their name are told almost at once, as
is a restore, which brings the file of the snapshot's time: one that does not name all snapshots is of no use for a recovery. What
a kill keeps it from writing is written some time after the next start, as is what differs for any other reason. A start of an
instance changes nothing that is worth it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine
from pathlib import Path

from atoll.domain.errors import AtollError, NotFound
from atoll.host import confined
from atoll.host.threads import in_thread
from atoll.services.events import Event
from atoll.services.instances import backup_index, backup_subject
from atoll.services.instances.backup_index import Subject
from atoll.services.instances.core import InstanceCore

log = logging.getLogger(__name__)

NAME = "backup.yaml"

PAUSE_SECONDS = 0.1
_SOON_SECONDS = 0.02
"""Enough for whoever waits for the change to hear of it first."""
_REST = 9
"""After a writing comes a rest of so many times the processor time that it took: an instance may have a thousand snapshots, which
takes 0.3 s, and they are made one after the other. Time that it took on a busy host is no reason to leave the file as it was."""
_SOON_ACTIONS = frozenset((*(f"instance-snapshot-{verb}" for verb in ("created", "renamed", "deleted")), "instance-restored"))
_LOOK_AFTER_SECONDS = 60.0
_LOOK_SECONDS = 0.05
_MODE = 0o400
_INSTANCE_CHANGES = frozenset(
    f"instance-{change}"
    for change in (
        *("created", "updated", "renamed", "restored"),
        *(f"snapshot-{verb}" for verb in ("created", "updated", "renamed", "deleted")),
    )
)
_VOLUME_CHANGES = frozenset(("storage-volume-updated", "storage-volume-snapshot-updated"))

Key = tuple[str, str]


class BackupYaml:
    """Writes the files, from `start` to `stop`."""

    def __init__(self, core: InstanceCore) -> None:
        self._core = core
        self._changed: set[Key] = set()
        self._due: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()
        self._rest_until = 0.0

    def start(self) -> None:
        """Listen to events, and look after all instances in a while."""
        self._core.hub.watch(self._heard)
        self._spawn(self._look_at_all())

    async def stop(self) -> None:
        """Write what is due, and no more."""
        self._core.hub.unwatch(self._heard)
        if self._due is not None:
            self._due.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._write_changed(rested=False)

    def _heard(self, event: Event) -> None:
        action, parts = event.metadata["action"], event.metadata["source"].partition("?")[0].split("/")
        if action in _INSTANCE_CHANGES:
            name = parts[3]
        elif action in _VOLUME_CHANGES:
            name = parts[6]  # of a custom volume, perhaps: then no instance is found, or one is looked at in vain
        else:
            return
        self._changed.add((event.project, name))
        soon = action in _SOON_ACTIONS
        if self._due is not None and soon:
            self._due.cancel()
        if self._due is None or soon:
            self._due = asyncio.get_running_loop().call_later(_SOON_SECONDS if soon else PAUSE_SECONDS, self._begin)

    def _begin(self) -> None:
        self._due = None
        self._spawn(self._write_changed())

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look_at_all(self) -> None:
        """Once, and slowly: what differs from what is in the files."""
        await asyncio.sleep(_LOOK_AFTER_SECONDS)
        for loaded in await self._core.load_all(None):
            self._changed.add((loaded.record.project, loaded.record.name))
            await self._write_changed()
            await asyncio.sleep(_LOOK_SECONDS)

    async def _write_changed(self, *, rested: bool = True) -> None:
        clock = asyncio.get_running_loop().time
        async with self._turn:  # so that what is written last is what was read last
            if self._changed and rested:
                await asyncio.sleep(self._rest_until - clock())
            used = 0.0
            while self._changed:
                key = self._changed.pop()
                try:
                    used += await self._write(key)
                except asyncio.CancelledError:
                    self._changed.add(key)
                    raise
                self._rest_until = clock() + _REST * used

    async def _write(self, key: Key) -> float:
        """Seconds of processor time that it took. Nothing wrong if the instance is gone. That it cannot be written is logged: the
        instance is none the worse for it."""
        try:
            loaded = await self._core.load(*key)
            if loaded.record.phase:
                return 0.0
            folder = self._core.storage.driver(loaded.pool).data(loaded.volume)
            return await in_thread(_store, folder, await backup_subject.load(self._core, loaded))
        except (NotFound, FileNotFoundError):
            return 0.0
        except (AtollError, OSError) as error:
            log.warning("The description of instance %s of project %s cannot be written: %s", key[1], key[0], error)
            return 0.0


def _store(folder: Path, subject: Subject) -> float:
    """Write it if that changes something; seconds of processor time that it took. Blocks."""
    begun = time.thread_time()
    content = backup_index.instance(subject)
    if not _has(folder, content):
        confined.write(folder, NAME, content, mode=_MODE)
    return time.thread_time() - begun


def _has(folder: Path, content: bytes) -> bool:
    with contextlib.suppress(NotFound):
        return confined.read(folder, NAME) == content
    return False
