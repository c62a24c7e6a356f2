"""What every built image has: its templates, its metadata, and a way to write files into its tree."""

from __future__ import annotations

import os
import time
from pathlib import Path

from atoll.domain.architectures import Architecture
from atoll.domain.image_metadata import ImageMetadata, Template, Trigger
from atoll.host.imagebuild import cloud
from atoll.host.imagebuild.recipe import Recipe

_HOSTS = """\
127.0.0.1\tlocalhost
127.0.1.1\t{{ container.name }}

::1\tlocalhost ip6-localhost ip6-loopback
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""

_FILES = {"hostname.tpl": "{{ container.name }}\n", "hosts.tpl": _HOSTS}

_WHEN = (Trigger.CREATE, Trigger.COPY, Trigger.RENAME)

TEMPLATES = {
    "/etc/hostname": Template(_WHEN, "hostname.tpl"),
    "/etc/hosts": Template(_WHEN, "hosts.tpl"),
}


def write_templates(directory: Path, *, has_cloud_init: bool = False) -> None:
    """Make `templates/` of an image's folder."""
    folder = directory / "templates"
    folder.mkdir(mode=0o755)
    for name, text in {**_FILES, **(cloud.FILES if has_cloud_init else {})}.items():
        write(folder, name, text)


def metadata(recipe: Recipe, architecture: Architecture, *, now: float | None = None) -> ImageMetadata:
    """metadata.yaml of an image that is built now (seconds since the epoch, for tests)."""
    made = int(time.time() if now is None else now)
    serial = time.strftime("%Y%m%d_%H%M", time.gmtime(made))
    port = architecture.debian or architecture.name
    name = f"{recipe.distribution.brand} {recipe.release}".strip()
    return ImageMetadata(
        architecture=architecture.name,
        creation_date=made,
        properties={
            "architecture": port,
            "description": f"{name} {port} ({serial})",
            "name": "-".join(filter(None, (recipe.distribution.value, recipe.release, port, recipe.variant, serial))),
            "os": recipe.distribution.brand,
            "release": recipe.release or recipe.distribution.value,
            "serial": serial,
            "variant": recipe.variant,
            **({"version": recipe.version} if recipe.version else {}),
        },
        templates={**TEMPLATES, **(cloud.TEMPLATES if recipe.has_cloud_init else {})},
    )


def write(root: Path, name: str, text: str | bytes, *, mode: int = 0o644) -> None:
    """A new file in the tree, in place of whatever stood there; folders are made. A link is replaced, never followed."""
    path = root / name
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    data = text.encode() if isinstance(text, str) else text
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
        file.write(data)
        os.fchmod(file.fileno(), mode)
