"""The files beside an instance's root file system (metadata.yaml, templates/) on their way between servers; and progress."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from atoll.config import units
from atoll.domain import image_metadata
from atoll.domain.errors import AtollError, BadRequest
from atoll.domain.paths import Paths
from atoll.drivers.storage.contract import VolumeId
from atoll.host import confined, small_files
from atoll.host.threads import in_thread
from atoll.services.instances.backup_files import BackupFiles
from atoll.services.instances.transfer import Place
from atoll.services.operations import Operation

PROGRESS = "fs_progress"
_REPORT_SECONDS = 0.5
_METADATA, _TEMPLATES = "metadata.yaml", "templates"
_MOST_TEMPLATES = 1000


@asynccontextmanager
async def folder(paths: Paths) -> AsyncIterator[Path]:
    """A folder for what stands beside a root file system; it goes with the block, or on the next start."""
    files = BackupFiles(paths)
    made = await files.receive()
    async with files.using(made):
        await in_thread((made / "rootfs").mkdir)
        yield made


class Progress:
    """Counts the bytes of one volume that went, and has the operation show them as LXD does."""

    def __init__(self, operation: Operation, name: str) -> None:
        self._operation = operation
        self._name = name
        self._bytes = 0
        self._begun = self._told = time.monotonic()

    def __call__(self, size: int) -> None:
        self._bytes += size
        now = time.monotonic()
        if now - self._told >= _REPORT_SECONDS:
            self._told = now
            rate = int(self._bytes / (now - self._begun))
            text = f"{self._name}: {units.format_size(self._bytes)} ({units.format_size(rate)}/s)"
            self._operation.progress(PROGRESS, text)


def progress(operation: Operation, volume: VolumeId) -> Progress:
    """The progress of a volume or of one of its snapshots."""
    return Progress(operation, f"{volume.name}/{volume.snapshot}" if volume.snapshot else volume.name)


async def copy_beside(state: Place, beside: Path) -> None:
    """Copy the files beside a root file system that are to be sent into that folder."""
    await small_files.copy(state.driver.data(state.volume), beside, (_METADATA, _TEMPLATES))


async def place_beside(beside: Path, data: Path) -> None:
    """Put what came from a stranger beside a root file system: the files that belong there, if they are such."""
    await in_thread(lambda: _write(read_beside(beside), data))


async def write_beside(files: Mapping[str, bytes], data: Path) -> None:
    """As `place_beside`, of files that a stranger named and sent."""
    await in_thread(_write, {name: content for name, content in files.items() if _belongs(name)}, data)


def read_beside(folder: Path) -> dict[str, bytes]:
    """The small files that belong beside a root file system, by their names, whatever else there is. Blocks."""
    found = {}
    for name in (_METADATA, *_templates(folder)):
        with suppress(AtollError):  # not there, or not a small file
            found[name] = confined.read(folder, name)
    return found


def _write(files: Mapping[str, bytes], data: Path) -> None:
    for name in (_METADATA, _TEMPLATES):
        confined.remove_tree(data / name)
    for name, content in files.items():
        if name != _METADATA:
            (data / _TEMPLATES).mkdir(mode=0o755, exist_ok=True)
        confined.write(data, name, content, mode=0o644)


def _belongs(name: str) -> bool:
    folder, slash, rest = name.partition("/")
    return name == _METADATA or (folder == _TEMPLATES and bool(slash) and _is_template(rest))


def _templates(folder: Path) -> list[str]:
    found = folder / _TEMPLATES
    if found.is_symlink() or not found.is_dir():
        return []
    listed = sorted(each.name for each in found.iterdir())[:_MOST_TEMPLATES]
    return [f"{_TEMPLATES}/{name}" for name in listed if _is_template(name)]


def _is_template(name: str) -> bool:
    try:
        image_metadata.template_file(_TEMPLATES, name)
    except BadRequest:
        return False
    return True
