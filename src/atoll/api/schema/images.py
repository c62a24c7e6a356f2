"""Wire types of images and their aliases."""

from __future__ import annotations

import msgspec

from atoll.api.schema.common import Body


class Alias(Body):
    """A name to give to a new image, or that an image has."""

    name: str = ""
    description: str = ""


class ImagesPostSource(Body):
    """Where a new image comes from; which fields count depends on `type`: image, instance, snapshot, url or build."""

    type: str = ""
    alias: str = ""
    certificate: str = ""
    fingerprint: str = ""
    image_type: str = ""
    mode: str = ""
    name: str = ""
    project: str = ""
    protocol: str = ""
    secret: str = ""
    server: str = ""
    url: str = ""
    distribution: str = ""
    release: str = ""
    variant: str = ""
    packages: list[str] | None = None


class ImagesPost(Body):
    """POST /1.0/images, unless the body is an image."""

    source: ImagesPostSource | None = None
    aliases: list[Alias] | None = None
    auto_update: bool = False
    compression_algorithm: str = ""
    expires_at: str | None = None
    filename: str = ""
    profiles: list[str] | None = None
    properties: dict[str, str] | None = None
    public: bool = False


class ImagePut(Body):
    """PUT and PATCH of an image; for PATCH what is absent (or null) stays, and properties are merged.
    Absent profiles stay for PUT too."""

    auto_update: bool | None = None
    properties: dict[str, str] | None = None
    public: bool | None = None
    expires_at: str | None = None
    profiles: list[str] | None = None


class AliasesPost(Body):
    """POST of an alias."""

    name: str = ""
    description: str = ""
    target: str = ""
    type: str = ""


class AliasPut(Body):
    """PUT and PATCH of an alias; for PATCH what is absent (or null) stays."""

    description: str | None = None
    target: str | None = None


class ImageExportPost(Body):
    """POST …/export: push the image to another server."""

    target: str = ""
    secret: str = ""
    certificate: str = ""
    aliases: list[Alias] | None = None
    project: str = ""
    profiles: list[str] | None = None


class ImageSource(msgspec.Struct):
    """Where an image came from."""

    alias: str
    certificate: str
    protocol: str
    server: str
    image_type: str


class Image(msgspec.Struct):
    """An image."""

    auto_update: bool
    properties: dict[str, str]
    public: bool
    expires_at: str
    profiles: list[str]
    aliases: list[Alias]
    architecture: str
    cached: bool
    filename: str
    fingerprint: str
    size: int
    type: str
    created_at: str
    last_used_at: str
    uploaded_at: str
    update_source: ImageSource | msgspec.UnsetType = msgspec.UNSET


class AliasEntry(msgspec.Struct):
    """An alias with the image that it names."""

    description: str
    target: str
    name: str
    type: str
