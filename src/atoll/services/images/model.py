"""What the use cases of images hand to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from atoll.domain import names
from atoll.domain.entities import ImageSource
from atoll.domain.errors import BadRequest
from atoll.domain.image_metadata import ImageMetadata

DEFAULT_PROFILES: tuple[str, ...] = ("default",)

MAX_PROPERTIES = 1000

TOKEN_SECONDS = 86400.0
"""How long the secret for a download or an upload may wait for it."""


class Format(StrEnum):
    """How an image's bytes are laid out; the value is what its row says."""

    UNIFIED = "unified"  # one tarball
    SQUASHFS = "squashfs"  # one squashfs with metadata.yaml and rootfs/ inside
    SPLIT = "split"  # a tarball with the metadata, and the root file system beside it


@dataclass(frozen=True, slots=True)
class NewAlias:
    """An alias to give to a new image."""

    name: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a client wants of a new image beside its content. None, or 0 for `expires_at`, leaves it to the image itself.

    `cached`: nobody asked for the image itself, but for an instance made of it. `source`: where newer versions are looked for.
    """

    filename: str = ""
    public: bool = False
    auto_update: bool = False
    expires_at: int = 0
    properties: Mapping[str, str] | None = None
    profiles: tuple[str, ...] | None = None
    aliases: tuple[NewAlias, ...] = ()
    compression: str = ""
    cached: bool = False
    source: ImageSource | None = None

    def check(self) -> None:
        """BadRequest for a name or property that cannot be."""
        if self.filename:
            names.filename(self.filename)
        for profile in self.profiles or ():
            names.profile(profile)
        for alias in self.aliases:
            names.image_alias(alias.name)
        check_properties(self.properties or {})


@dataclass(frozen=True, slots=True)
class Changes:
    """What an image is to be from now on, of that which may change. `expires_at` in seconds, 0 for never."""

    public: bool = False
    auto_update: bool = False
    expires_at: int = 0
    properties: Mapping[str, str] = field(default_factory=dict)
    profiles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Staged:
    """An image's files in a staging folder, as they came; `fingerprint` is the hash of what was written, `filename` what the root
    file system's file was called where it came, if that is known."""

    folder: Path
    fingerprint: str
    meta: Path
    rootfs: Path | None = None
    filename: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A whole and valid image in a staging folder, which only has to be taken into the store. `size` in bytes."""

    fingerprint: str
    size: int
    format: Format
    metadata: ImageMetadata
    meta: Path
    rootfs: Path | None = None


def check_properties(properties: Mapping[str, str]) -> None:
    """BadRequest for properties that no table, line or configuration could show."""
    if len(properties) > MAX_PROPERTIES:
        raise BadRequest(f"An image has at most {MAX_PROPERTIES} properties")
    for key, value in properties.items():
        if not key or not key.isprintable():
            raise BadRequest(f"Invalid image property {key[:80]!r}")
        if "\0" in value:
            raise BadRequest(f"Image property {key[:80]!r} may not contain NUL characters")
