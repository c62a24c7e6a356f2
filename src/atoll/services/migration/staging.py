"""A volume as the tree that goes between servers: what stands beside its root file system, in a folder of its own, and that."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from atoll.config import units
from atoll.domain import image_metadata
from atoll.domain.errors import AtollError, BadRequest
from atoll.domain.migration_header import Header, RsyncFeatures
from atoll.host import confined, rsync, small_files
from atoll.host.rsync import Options, Tree
from atoll.host.threads import in_thread
from atoll.services.instances.backup_files import BackupFiles
from atoll.services.instances.core import InstanceCore
from atoll.services.instances.transfer import Place
from atoll.services.operations import Operation

PROGRESS = "fs_progress"
_REPORT_SECONDS = 0.5
_METADATA, _TEMPLATES = "metadata.yaml", "templates"
_MOST_TEMPLATES = 1000


def options(header: Header) -> Options:
    """What the target has agreed to."""
    agreed = header.rsync_features or RsyncFeatures()
    return Options(
        xattrs=bool(agreed.xattrs), delete=bool(agreed.delete), compress=bool(agreed.compress), whole=bool(agreed.whole)
    )


@asynccontextmanager
async def folder(core: InstanceCore) -> AsyncIterator[Path]:
    """A folder for what stands beside a root file system; it goes with the block, or on the next start."""
    files = BackupFiles(core.paths)
    made = await files.receive()
    async with files.using(made):
        await in_thread((made / "rootfs").mkdir)
        yield made


class Progress:
    """Of one tree, told by the operation as LXD does."""

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


async def send(place: Place, beside: Path, link: rsync.Link, how: Options, progress: Progress) -> None:
    """Send a volume or a snapshot."""
    await small_files.copy(place.driver.data(place.volume), beside, (_METADATA, _TEMPLATES))
    async with place.driver.open_rootfs(place.volume) as rootfs:
        await rsync.send(Tree(beside, rootfs), link, how, progress)


async def place_beside(beside: Path, data: Path) -> None:
    """Put what came from a stranger beside a root file system: the files that belong there, if they are such."""
    await in_thread(_place_beside, beside, data)


def _place_beside(beside: Path, data: Path) -> None:
    for name in (_METADATA, _TEMPLATES):
        confined.remove_tree(data / name)
    for name in (_METADATA, *_templates(beside)):
        try:
            content = confined.read(beside, name)
        except AtollError:
            continue  # not there, or not a small file
        if name != _METADATA:
            (data / _TEMPLATES).mkdir(mode=0o755, exist_ok=True)
        confined.write(data, name, content, mode=0o644)


def _templates(beside: Path) -> list[str]:
    found = beside / _TEMPLATES
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
