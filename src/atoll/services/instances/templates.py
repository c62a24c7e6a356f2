"""Templates of an instance's image, rendered into its root file system: on its first start, and where they say so on every start.

`metadata.yaml` and `templates/` in the instance's volume came with the image, from a stranger: they are read as plain files that
no link leads to, and all templates are rendered before the first file is written, so that a hostile one leaves nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from atoll import config as keys
from atoll.domain import image_metadata, templating
from atoll.domain.errors import AtollError, HostError, NotFound
from atoll.domain.image_metadata import ImageMetadata, Template, Trigger
from atoll.drivers.storage.contract import StorageDriver
from atoll.host import confined, guest_files
from atoll.host.guest_files import NewFile
from atoll.host.threads import in_thread
from atoll.services.instances.core import Loaded

APPLY = "volatile.apply_template"
"""Which trigger waits for the next start."""

MAX_TEMPLATE = 256 << 10
"""Bytes of a template."""


@dataclass(frozen=True, slots=True)
class _Due:
    """A template to render: the file that it makes, for which trigger, and its text."""

    path: str
    template: Template
    trigger: Trigger
    source: str


async def apply(loaded: Loaded, storage: StorageDriver) -> None:
    """Before the volume is mounted for a start: render what waits for it, and what belongs to every start.

    Costs a look at one folder where the image has no templates. BadRequest that names the template for a bad one.
    """
    rendered = await in_thread(_render_all, loaded, storage.data(loaded.volume))
    if not rendered:
        return
    await storage.unmount(loaded.volume)  # a start that was cut off may have left it mounted with shifted ids
    async with storage.open_rootfs(loaded.volume) as rootfs:
        await in_thread(_write_all, rootfs, rendered)


def _triggers(loaded: Loaded) -> tuple[Trigger, ...]:
    waiting = loaded.record.config.get(APPLY, "")
    return (Trigger(waiting), Trigger.START) if waiting in (Trigger.CREATE, Trigger.COPY, Trigger.RENAME) else (Trigger.START,)


def _due(data: Path, triggers: Iterable[Trigger]) -> list[_Due]:
    """What to render, in order. Blocks."""
    if not (data / "templates").is_dir():
        return []
    try:
        metadata = _parsed(confined.read(data, "metadata.yaml"))
    except NotFound:
        return []
    found: list[_Due] = []
    for trigger in triggers:
        for path, template in metadata.templates.items():
            if trigger in template.when:
                with _named(template.template, path):
                    text = confined.read(data, f"templates/{template.template}", limit=MAX_TEMPLATE)
                    found.append(_Due(path, template, trigger, text.decode(errors="replace")))
    return found


@functools.lru_cache(maxsize=32)
def _parsed(text: bytes) -> ImageMetadata:
    """Instances of one image have the same text."""
    return image_metadata.parse(text)


@contextmanager
def _named(name: str, path: str) -> Iterator[None]:
    """What goes wrong in the block is told with the template's name."""
    try:
        yield
    except AtollError as error:
        raise type(error)(f"Template {name!r} of {path!r}: {error.message}") from error
    except OSError as error:
        raise HostError(f"Template {name!r} of {path!r} cannot be read: {error.strerror or error}") from error


def _render_all(loaded: Loaded, data: Path) -> list[tuple[_Due, NewFile]]:
    """Each template with the file that it gives, in order. Blocks."""
    found = []
    for each in _due(data, _triggers(loaded)):
        with _named(each.template.template, each.path):
            text = templating.render(each.source, context(loaded, each.path, each.template, each.trigger))
        found.append((each, NewFile(each.path, text.encode(errors="replace"))))
    return found


def context(loaded: Loaded, path: str, template: Template, trigger: Trigger) -> dict[str, templating.Value]:
    """What a template of an instance can speak of, as LXD documents it."""
    record, config = loaded.record, loaded.expanded.config
    own = {
        "name": record.name,
        "type": record.type,
        "architecture": record.architecture,
        "ephemeral": "true" if record.ephemeral else "false",
        "privileged": "true" if keys.INSTANCE.flag(config, "security.privileged") else "false",
    }

    def config_get(key: str, default: templating.Value) -> str:
        value = config.get(key, default)
        return value if isinstance(value, str) else ""

    devices: Mapping[str, templating.Value] = dict(loaded.expanded.devices)
    return {
        "trigger": trigger.value,
        "path": path,
        "container": own,
        "instance": own,
        "config": dict(config),
        "devices": devices,
        "properties": dict(template.properties),
        "config_get": config_get,
    }


def _write_all(rootfs: Path, rendered: Sequence[tuple[_Due, NewFile]]) -> None:
    """Blocks."""
    made: set[str] = set()
    files: list[NewFile] = []
    for due, file in rendered:
        if not (due.template.create_only and (file.path in made or guest_files.exists(rootfs, file.path))):
            files.append(file)
            made.add(file.path)
    try:
        guest_files.write_all(rootfs, files)
    except OSError as error:
        raise HostError(f"Templates cannot be written: {error.strerror or error}") from error
