"""Wire types of an instance's image metadata."""

from __future__ import annotations

from atoll.api.schema.common import Body


class ImageMetadataTemplate(Body):
    """A file of the instance that is rendered from a template."""

    when: list[str] | None = None
    create_only: bool = False
    template: str = ""
    properties: dict[str, str] | None = None


class ImageMetadata(Body):
    """GET, PUT and PATCH of the metadata; for PATCH what is absent (or null) stays, and maps are merged."""

    architecture: str = ""
    creation_date: int | None = None
    expiry_date: int | None = None
    properties: dict[str, str] | None = None
    templates: dict[str, ImageMetadataTemplate] | None = None
