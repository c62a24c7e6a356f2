"""/1.0/instances/NAME/metadata: what an instance has of its image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from aiohttp import web

from atoll.api import response
from atoll.api.request import Request
from atoll.api.route import Access, Route
from atoll.api.schema import metadata as schema
from atoll.domain import image_metadata, names
from atoll.domain.entities import Instance
from atoll.domain.image_metadata import ImageMetadata
from atoll.services.instances.metadata import MetadataService
from atoll.services.instances.templates import MAX_TEMPLATE


class InstanceMetadataRoutes:
    """Routes of an instance's metadata and templates."""

    def __init__(self, metadata: MetadataService) -> None:
        self._metadata = metadata

    def table(self) -> Sequence[Route]:
        base = "/1.0/instances/{name}/metadata"
        path, body = f"{base}/templates", schema.ImageMetadata
        return (
            Route("GET", base, self.get, Access.PROJECT, "Get the instance image metadata", result=body),
            Route("PUT", base, self.put, Access.PROJECT, "Update the image metadata", body),
            Route("PATCH", base, self.patch, Access.PROJECT, "Partially update the image metadata", body),
            Route("GET", path, self.templates, Access.PROJECT, "Get the template file names or a specific", result=list[str]),
            Route("POST", path, self.write_template, Access.PROJECT, "Create or replace a template file"),
            Route("DELETE", path, self.delete_template, Access.PROJECT, "Delete a template file"),
        )

    async def get(self, request: Request) -> web.StreamResponse:
        """What metadata.yaml says."""
        found = _wire(await self._metadata.find(request.project, _name(request), caller=request.caller))
        return response.sync(found, etag=found)

    async def put(self, request: Request) -> web.StreamResponse:
        """Replace it; an architecture that is left out is the instance's."""
        body = await request.body(schema.ImageMetadata)

        def change(record: Instance, before: ImageMetadata | None) -> Mapping[str, Any]:
            request.check_etag(_wire(before))
            return {"architecture": record.architecture, "creation_date": 0, **_given(body)}

        await self._metadata.update(request.project, _name(request), change, caller=request.caller)
        return response.empty()

    async def patch(self, request: Request) -> web.StreamResponse:
        """Change only what is given; properties and templates one by one."""
        body = await request.body(schema.ImageMetadata)

        def change(record: Instance, before: ImageMetadata | None) -> Mapping[str, Any]:
            request.check_etag(_wire(before))
            empty = ImageMetadata(architecture=record.architecture, creation_date=0)
            old, new = image_metadata.tree(before or empty), _given(body)
            merged = {field: {**old[field], **new.get(field, {})} for field in ("properties", "templates")}
            return {**old, **new, **merged}

        await self._metadata.update(request.project, _name(request), change, caller=request.caller)
        return response.empty()

    # --- templates -----------------------------------------------------------------------------------------------------

    async def templates(self, request: Request) -> web.StreamResponse:
        """The names; with `path`, a template's text."""
        if not (template := request.query("path")):
            return response.sync(await self._metadata.templates(request.project, _name(request)))
        text = await self._metadata.template(request.project, _name(request), template, caller=request.caller)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Disposition": f"inline;filename={quote(template)}",
        }
        return web.Response(body=text, headers=headers)

    async def write_template(self, request: Request) -> web.StreamResponse:
        """From the body."""
        text = await request.read(MAX_TEMPLATE)
        await self._metadata.write_template(request.project, _name(request), request.query("path"), text, caller=request.caller)
        return response.empty()

    async def delete_template(self, request: Request) -> web.StreamResponse:
        await self._metadata.delete_template(request.project, _name(request), request.query("path"), caller=request.caller)
        return response.empty()


def _name(request: Request) -> str:
    return names.instance(request.path("name"))


def _wire(metadata: ImageMetadata | None) -> dict[str, Any]:
    """As LXD shows it; an instance without metadata.yaml has empty ones."""
    found = image_metadata.tree(metadata or ImageMetadata(architecture="", creation_date=0))
    return {"expiry_date": 0, **found}


def _given(body: schema.ImageMetadata) -> dict[str, Any]:
    """The fields of a body that say something, as plain data."""
    fields: dict[str, Any] = {
        "architecture": body.architecture or None,
        "creation_date": body.creation_date,
        "expiry_date": body.expiry_date,
        "properties": body.properties,
        "templates": None if body.templates is None else {path: _template(each) for path, each in body.templates.items()},
    }
    return {name: value for name, value in fields.items() if value is not None}


def _template(body: schema.ImageMetadataTemplate) -> dict[str, Any]:
    return {
        "when": body.when or [],
        "create_only": body.create_only,
        "template": body.template,
        "properties": body.properties or {},
    }
