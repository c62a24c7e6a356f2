"""metadata.yaml and the templates of an instance, which came with its image and go into an image that is made of it.

They lie in the instance's volume beside its root file system, where no guest sees them; but what an image or a backup brought may
be anything, so they are reached as plain files that no link leads to, and what is written is only what a start could read. Each
change is one file, put in place in one step: a kill leaves the old or the new.
"""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

from atoll.domain import image_metadata
from atoll.domain.caller import Caller
from atoll.domain.entities import Instance
from atoll.domain.errors import BadRequest, NotFound, TooLarge
from atoll.domain.image_metadata import ImageMetadata
from atoll.host import confined
from atoll.host.threads import in_thread
from atoll.services.instances.core import InstanceCore, Loaded
from atoll.services.instances.templates import MAX_TEMPLATE

FILE, FOLDER = "metadata.yaml", "templates"
MAX_TEMPLATES = 1000
"""How many there may be: each start reads the names."""

Change = Callable[[Instance, ImageMetadata | None], Mapping[str, Any]]
"""Makes the new metadata, as plain data, of the instance and what it has (None: nothing)."""


class MetadataService:
    """Use cases of an instance's metadata."""

    def __init__(self, core: InstanceCore) -> None:
        self._core = core

    async def find(self, project: str, name: str, *, caller: Caller) -> ImageMetadata | None:
        """What the instance has; None without a metadata.yaml. BadRequest if that is not as it should be."""
        loaded = await self._core.load(project, name)
        found = await in_thread(_read, self._data(loaded))
        self._core.tell("instance-metadata-retrieved", loaded.record, suffix="/metadata", caller=caller)
        return found

    async def update(self, project: str, name: str, change: Change, *, caller: Caller) -> None:
        """Replace it. BadRequest, naming the node, for what no image could have."""
        async with self._held(project, name) as loaded:
            data = self._data(loaded)
            wanted = image_metadata.of_tree(change(loaded.record, await in_thread(_read, data)))
            await in_thread(_write, data, wanted)
        self._core.tell("instance-metadata-updated", loaded.record, suffix="/metadata", caller=caller)

    # --- templates -----------------------------------------------------------------------------------------------------

    async def templates(self, project: str, name: str) -> list[str]:
        """Names of the template files."""
        return await in_thread(_names, self._data(await self._core.load(project, name)))

    async def template(self, project: str, name: str, template: str, *, caller: Caller) -> bytes:
        """A template's text."""
        _check(template)
        loaded = await self._core.load(project, name)
        text = await in_thread(_read_template, self._data(loaded), template)
        self._tell("retrieved", loaded, template, caller)
        return text

    async def write_template(self, project: str, name: str, template: str, text: bytes, *, caller: Caller) -> None:
        """Make or replace a template."""
        _check(template)
        if len(text) > MAX_TEMPLATE:
            raise TooLarge(f"A template may have at most {MAX_TEMPLATE} bytes")
        async with self._held(project, name) as loaded:
            await in_thread(_write_template, self._data(loaded), template, text)
        self._tell("created", loaded, template, caller)

    async def delete_template(self, project: str, name: str, template: str, *, caller: Caller) -> None:
        """Remove a template."""
        _check(template)
        async with self._held(project, name) as loaded:
            await in_thread(_remove_template, self._data(loaded), template)
        self._tell("deleted", loaded, template, caller)

    def _tell(self, what: str, loaded: Loaded, template: str, caller: Caller) -> None:
        action, context = f"instance-metadata-template-{what}", {"path": template}
        self._core.tell(action, loaded.record, context=context, suffix="/metadata/templates", caller=caller)

    def _data(self, loaded: Loaded) -> Path:
        return self._core.storage.driver(loaded.pool).data(loaded.volume)

    @asynccontextmanager
    async def _held(self, project: str, name: str) -> AsyncIterator[Loaded]:
        """The instance, while nothing else happens to it."""
        machine = (await self._core.load(project, name)).machine
        async with self._core.hold(machine):
            yield await self._core.load(project, name)


def _check(template: str) -> None:
    """BadRequest for what cannot be a template's name: it is one segment of a path, and no hidden file."""
    if not template:
        raise BadRequest("missing path argument")
    try:
        image_metadata.template_file("path", template)
    except BadRequest as error:
        raise BadRequest("Invalid template filename") from error
    if template.startswith((".", "-")):
        raise BadRequest("Invalid template filename")


def _read(data: Path) -> ImageMetadata | None:
    try:
        return image_metadata.parse(confined.read(data, FILE))
    except NotFound:
        return None


def _write(data: Path, wanted: ImageMetadata) -> None:
    text = image_metadata.dump(wanted)
    image_metadata.parse(text)  # within the limits of what is read
    confined.write(data, FILE, text, mode=0o644)


def _names(data: Path) -> list[str]:
    with suppress(NotFound), confined.directory(data, FOLDER) as folder, os.scandir(folder) as found:
        return sorted(entry.name for entry in found if not entry.name.startswith(".") and entry.is_file(follow_symlinks=False))
    return []


def _read_template(data: Path, template: str) -> bytes:
    with _told(template):
        return confined.read(data, f"{FOLDER}/{template}", limit=MAX_TEMPLATE)


def _write_template(data: Path, template: str, text: bytes) -> None:
    with confined.directory(data) as base, suppress(FileExistsError):
        os.mkdir(FOLDER, 0o755, dir_fd=base)
    names = _names(data)
    if template not in names and len(names) >= MAX_TEMPLATES:
        raise BadRequest(f"An instance may have at most {MAX_TEMPLATES} templates")
    with _told(template):
        confined.write(data, f"{FOLDER}/{template}", text, mode=0o644)


def _remove_template(data: Path, template: str) -> None:
    with _told(template), confined.directory(data, FOLDER) as folder:
        if stat.S_ISDIR(os.lstat(template, dir_fd=folder).st_mode):
            raise BadRequest("Invalid template filename")
        os.unlink(template, dir_fd=folder)


@contextmanager
def _told(template: str) -> Iterator[None]:
    """What goes wrong in the block is told with the template's name."""
    try:
        yield
    except (NotFound, FileNotFoundError) as error:
        raise NotFound(f'Template "{template}" not found') from error
    except OSError as error:
        raise BadRequest(f'Template "{template}": {error.strerror}') from error
