"""What is half done to something is put right: what a kill left, and what an undo that failed itself has left.

A phase in an object's row says that something is being done to it, and whoever does that holds the object's lock, from before
the phase is written until it is gone. So one with a phase whose lock is free was left behind. That is looked for at the daemon's
start, when a pool is back, and each minute. Where the row is there without that lock, its service knows of whoever is at work:
instances that are going to be made (`InstanceCreator`), snapshots that are read (`SnapshotService`), backups (`BackupRecords`).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

from atoll.domain.errors import AtollError
from atoll.services.locks import KeyedLocks

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Half:
    """Something that had a phase a moment ago. `settle` is called when its locks are held: it looks again, puts right what still
    has to be, can be repeated, and returns one sentence for each thing."""

    what: str
    keys: Sequence[Hashable]
    settle: Callable[[], Awaitable[Sequence[str]]]


async def each(locks: KeyedLocks, halves: Iterable[Half]) -> list[str]:
    """Settle those that nobody is at work on, waiting for nobody; all that they say. One that cannot be settled is told of in
    the log and keeps neither the others nor the daemon from going on: it is tried again."""
    done: list[str] = []
    for half in halves:
        if any(locks.is_held(key) for key in half.keys):
            continue
        try:
            async with locks.hold(*half.keys):
                done += await half.settle()
        except (AtollError, OSError) as error:  # no space, a disk that fails, a pool that is away
            log.error("What is half done to %s cannot be settled now: %s", half.what, error)
    return done
