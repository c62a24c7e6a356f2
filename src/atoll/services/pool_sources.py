"""Where pools are on the host, as far as it can be told without their drivers. All functions block."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from atoll.domain.entities import StoragePool
from atoll.domain.errors import BadRequest, Conflict
from atoll.drivers.storage.contract import Pool, VolumeKind


def refuse_shared(source: str, pools: Sequence[StoragePool]) -> None:
    """BadRequest for a directory in which another pool is, or that is in one's."""
    real = os.path.realpath(source)
    for pool in pools if source.startswith("/") else ():
        taken = pool.config.get("source", "")
        if taken.startswith("/") and os.path.commonpath((real, os.path.realpath(taken))) in (real, os.path.realpath(taken)):
            raise BadRequest(f"Source path '{source}' is used by storage pool {pool.name!r}")


def refuse_remains(pool: Pool) -> None:
    """Conflict if something is where a new pool is going to be: it is another's, and must not go when the making fails."""
    if pool.root.is_dir() and any(pool.root.iterdir()):
        raise Conflict(f"The folder {pool.root} of the storage pool is not empty")
    if pool.config.get("source", "") in ("", str(pool.file)) and os.path.lexists(pool.file):
        hint = "it may hold a pool that the database has lost; if not, remove it"
        raise Conflict(f"The file {pool.file} exists already", hint=hint)


def may_be_pool(source: str) -> bool:
    """Whether a folder has what a pool has; of anything else, whether it is there. Of a file system that is named by its uuid
    its driver will tell."""
    with suppress(ValueError):
        uuid.UUID(source)
        return True
    path = Path(source)
    if not path.is_absolute():
        return False
    return any((path / kind.folder).is_dir() for kind in VolumeKind) if path.is_dir() else path.exists()
