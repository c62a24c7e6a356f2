"""Log files of instances: the driver's log and configuration, the console's, and recorded outputs of commands."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from atoll.domain import names
from atoll.domain.caller import Caller
from atoll.domain.errors import BadRequest, NotFound
from atoll.host.threads import in_thread
from atoll.services.instances.core import InstanceCore, Loaded

_LIVE = ("lxc.log", "lxc.conf", "console.log", "forkexec.log")
_SUFFIXES = (".log", ".conf", ".old", ".stdout", ".stderr")


class LogService:
    """Use cases of logs."""

    def __init__(self, core: InstanceCore) -> None:
        self._core = core

    async def find_all(self, project: str, name: str) -> list[str]:
        """Names of an instance's log files."""
        loaded = await self._core.load(project, name)
        return await in_thread(_regular_files, self._folder(loaded))

    async def find(self, project: str, name: str, file: str) -> Path:
        """A log file's path. NotFound if there is none; BadRequest for a name that none could have."""
        _check(file)
        loaded = await self._core.load(project, name)
        if file not in await in_thread(_regular_files, self._folder(loaded)):
            raise NotFound("Log file not found")
        return self._folder(loaded) / file

    async def retrieve(self, project: str, name: str, file: str, *, caller: Caller) -> Path:
        """`find`, for a client that reads it."""
        path = await self.find(project, name, file)
        loaded = await self._core.load(project, name)
        self._core.tell("instance-log-retrieved", loaded.record, suffix=f"/logs/{file}", caller=caller)
        return path

    async def delete(self, project: str, name: str, file: str, *, caller: Caller) -> None:
        """Remove one that is not being written."""
        if file in _LIVE:
            raise BadRequest(f"Log file {file!r} is in use and can't be deleted")
        path = await self.find(project, name, file)
        await in_thread(path.unlink, missing_ok=True)
        loaded = await self._core.load(project, name)
        self._core.tell("instance-log-deleted", loaded.record, suffix=f"/logs/{file}", caller=caller)

    def _folder(self, loaded: Loaded) -> Path:
        return self._core.paths.logs(loaded.machine.key)


def _check(file: str) -> None:
    names.log_file(file)
    if not file.endswith(_SUFFIXES):
        raise BadRequest(f"Invalid log file name {file!r}")


def _regular_files(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.name
                for entry in entries
                if entry.name.endswith(_SUFFIXES) and stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode)
            )
    except FileNotFoundError:
        return []
