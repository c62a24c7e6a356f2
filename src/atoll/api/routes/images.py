"""/1.0/images: lists, uploads, change, download, tokens."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web

from atoll.api import image_sources, image_transfer, listing, response
from atoll.api.request import Request
from atoll.api.route import Access, Route
from atoll.api.schema import images as schema
from atoll.domain import clock, names
from atoll.domain.entities import DEFAULT_PROJECT, Image, ImageSource
from atoll.domain.errors import BadRequest, NotFound, Unsupported
from atoll.services.events import with_project
from atoll.services.images import ImageService, receive
from atoll.services.images.jobs import BuildOrder, ImageJobs
from atoll.services.images.model import MAX_PROPERTIES, Changes, NewAlias, Wishes
from atoll.services.images.sources import DIRECT, Source
from atoll.services.operations import Operation

_TRUE = ("1", "true", "yes", "on")
_JSON = ("application/json", "application/x-www-form-urlencoded")  # the second is what curl says of JSON
_ONE = "/1.0/images/{fingerprint}"


class ImageRoutes:
    """Routes of images themselves."""

    def __init__(self, images: ImageService, jobs: ImageJobs) -> None:
        self._images = images
        self._jobs = jobs

    def table(self) -> Sequence[Route]:
        """The routes."""
        changes = schema.ImagePut
        return (
            Route("GET", "/1.0/images", self.list_, Access.PUBLIC, "List images", result=list[schema.Image]),
            Route("POST", "/1.0/images", self.create, Access.PROJECT, "Add an image", schema.ImagesPost, is_async=True),
            Route("GET", _ONE, self.get, Access.PUBLIC, "Get an image", result=schema.Image),
            Route("PUT", _ONE, self.put, Access.PROJECT, "Replace an image's description", changes),
            Route("PATCH", _ONE, self.patch, Access.PROJECT, "Change an image's description", changes),
            Route("DELETE", _ONE, self.delete, Access.PROJECT, "Delete an image", is_async=True),
            Route("GET", f"{_ONE}/export", self.export, Access.PUBLIC, "Download an image"),
            Route("POST", f"{_ONE}/export", self.push, Access.PROJECT, "Push an image to a server", schema.ImageExportPost),
            Route("POST", f"{_ONE}/refresh", self.refresh, Access.PROJECT, "Look for a newer version", is_async=True),
            Route("POST", f"{_ONE}/secret", self.secret, Access.PROJECT, "Make a download token", is_async=True),
        )

    # --- looking -------------------------------------------------------------------------------------------------------

    async def list_(self, request: Request) -> web.StreamResponse:
        """URLs or objects; public ones for strangers."""
        project, public_only = scope(request)
        found = await self._images.find_all(project, public_only=public_only)
        return listing.answer(
            request, found, url=lambda each: with_project(f"/1.0/images/{each.fingerprint}", project), render=_render
        )

    async def get(self, request: Request) -> web.StreamResponse:
        """One; a private one also for who has a token."""
        image, _ = await self._find_shown(request)
        return response.sync(_render(image), etag=_subject(image))

    async def _find_shown(self, request: Request) -> tuple[Image, Operation | None]:
        project, public_only = scope(request)
        fingerprint, secret = request.path("fingerprint"), request.query("secret")
        token = self._jobs.token(project, fingerprint, secret) if secret else None
        return await self._images.find(project, fingerprint, public_only=public_only and token is None), token

    async def _find(self, request: Request) -> Image:
        return await self._images.find(request.project, request.path("fingerprint"))

    # --- new ones ------------------------------------------------------------------------------------------------------

    async def create(self, request: Request) -> web.StreamResponse:
        """By a JSON body from something that is there, else the body is the image."""
        if request.raw.content_type in _JSON:
            return await self._create_from(request, await request.body(schema.ImagesPost))
        project, wishes = request.project, _wishes_of_headers(request.raw)
        expected = request.raw.headers.get("X-LXD-fingerprint", "")
        if expected:
            names.fingerprint(expected)
        await self._images.check_wishes(project, wishes, caller=request.caller)
        if request.raw.content_type == "multipart/form-data":
            staged = await receive.split(self._images.files, image_transfer.parts(request.raw))
        else:
            staged = await receive.unified(self._images.files, image_transfer.chunks(request.raw))
        return response.operation(self._jobs.upload(project, staged, wishes, expected=expected, caller=request.caller))

    async def _create_from(self, request: Request, body: schema.ImagesPost) -> web.StreamResponse:
        source = body.source or schema.ImagesPostSource()
        project, caller, wishes = request.project, request.caller, _wishes(body)
        match source.type:
            case "build":
                order = BuildOrder(source.distribution, source.release, source.variant, tuple(source.packages or ()))
                running = await self._jobs.build(project, order, wishes, caller=caller)
            case "image" if source.server:
                remote = image_sources.remote(source, type=source.image_type)
                running = await self._jobs.pull(project, remote, wishes, caller=caller)
            case "image":
                image = await self._source_image(request, source)
                running = await self._jobs.copy(project, image, wishes, caller=caller)
            case "instance" | "container":
                running = await self._jobs.publish(project, source.name, "", wishes, caller=caller)
            case "snapshot":
                name, _, snapshot = source.name.partition("/")
                names.snapshot(snapshot)
                running = await self._jobs.publish(project, name, snapshot, wishes, caller=caller)
            case "virtual-machine":
                raise Unsupported("Images of virtual machines are not supported")
            case "url":
                running = await self._jobs.pull(project, Source(source.url, DIRECT), wishes, caller=caller)
            case _:
                raise BadRequest(f"Invalid source type {source.type[:40]!r} of an image")
        return response.operation(running)

    async def _source_image(self, request: Request, source: schema.ImagesPostSource) -> Image:
        """The image to copy. What the caller may not see is not there."""
        if source.mode == "push":
            raise Unsupported("Images cannot be pushed to this server yet")
        project = names.project(source.project or DEFAULT_PROJECT)
        if not source.alias and not source.fingerprint:
            raise BadRequest("source: an alias or a fingerprint is required")
        public_only = not request.caller.may_use(project)
        if public_only and source.alias:
            found = await self._images.find_all(project, public_only=True)
            named = [image for image in found if source.alias in {alias.name for alias in image.aliases}]
            if not named:
                raise NotFound("Image not found")
            return named[0]
        if public_only:
            return await self._images.find(project, source.fingerprint, public_only=True)
        return await self._images.resolve(project, alias=source.alias, fingerprint=source.fingerprint)

    # --- changing ------------------------------------------------------------------------------------------------------

    async def put(self, request: Request) -> web.StreamResponse:
        """Replace; as in LXD, profiles that are absent stay."""
        image = await self._find(request)
        request.check_etag(_subject(image))
        body = await request.body(schema.ImagePut)
        changes = Changes(
            bool(body.public),
            bool(body.auto_update),
            _seconds(body.expires_at),
            body.properties or {},
            _profiles(body, image),
        )
        await self._images.update(request.project, image, changes, caller=request.caller)
        return response.empty()

    async def patch(self, request: Request) -> web.StreamResponse:
        """Change what is given."""
        image = await self._find(request)
        request.check_etag(_subject(image))
        body = await request.body(schema.ImagePut)
        changes = Changes(
            image.public if body.public is None else body.public,
            image.auto_update if body.auto_update is None else body.auto_update,
            image.expiry_date if body.expires_at is None else _seconds(body.expires_at),
            {**image.properties, **(body.properties or {})},
            _profiles(body, image),
        )
        await self._images.update(request.project, image, changes, caller=request.caller)
        return response.empty()

    async def delete(self, request: Request) -> web.StreamResponse:
        """Remove."""
        image = await self._find(request)
        return response.operation(await self._jobs.delete(request.project, image, caller=request.caller))

    # --- downloading ---------------------------------------------------------------------------------------------------

    async def export(self, request: Request) -> web.StreamResponse:
        """The file, or both files of a split image. A token opens this once."""
        image, token = await self._find_shown(request)
        files = await self._images.files.parts(image)
        if request.raw.method != "HEAD":
            if token is not None:
                self._jobs.use(token)
            self._images.tell("image-retrieved", scope(request)[0], image.fingerprint, request.caller)
        if len(files) == 1:
            return image_transfer.file_answer(files[0])
        return await image_transfer.send_parts(request.raw, files)

    async def push(self, request: Request) -> web.StreamResponse:
        """Not without remotes."""
        await self._find(request)
        raise Unsupported("Images cannot be pushed to other servers yet: that comes with remotes")

    async def refresh(self, request: Request) -> web.StreamResponse:
        """Look for a newer version."""
        image = await self._find(request)
        return response.operation(await self._jobs.refresh(request.project, image, caller=request.caller))

    async def secret(self, request: Request) -> web.StreamResponse:
        """A token for one download."""
        image = await self._find(request)
        return response.operation(await self._jobs.make_secret(request.project, image, caller=request.caller))


def scope(request: Request) -> tuple[str, bool]:
    """The project asked about, and whether the caller sees only what is public there. Anybody may ask about any project."""
    project = names.project(request.query("project") or DEFAULT_PROJECT)
    return project, not request.caller.may_use(project)


def _render(image: Image) -> schema.Image:
    return schema.Image(
        auto_update=image.auto_update,
        properties=dict(image.properties),
        public=image.public,
        expires_at=clock.date_or_never(image.expiry_date),
        profiles=list(image.profiles),
        aliases=[schema.Alias(name=alias.name, description=alias.description) for alias in image.aliases],
        architecture=image.architecture,
        cached=image.cached,
        filename=image.filename,
        fingerprint=image.fingerprint,
        size=image.size,
        type=image.type,
        created_at=clock.date_or_never(image.creation_date),
        last_used_at=clock.date_or_never(image.last_use_date),
        uploaded_at=clock.date_or_never(image.upload_date),
        update_source=msgspec.UNSET if image.source is None else _render_source(image.source),
    )


def _render_source(source: ImageSource) -> schema.ImageSource:
    return schema.ImageSource(source.alias, source.certificate, source.protocol, source.server, source.image_type)


def _profiles(body: schema.ImagePut, image: Image) -> tuple[str, ...]:
    return image.profiles if body.profiles is None else tuple(body.profiles)


def _subject(image: Image) -> list[object]:
    """What a PUT of the image could change."""
    return [image.public, image.auto_update, image.expiry_date, image.properties, image.profiles]


def _wishes(body: schema.ImagesPost) -> Wishes:
    return Wishes(
        filename=body.filename,
        public=body.public,
        auto_update=body.auto_update,
        expires_at=_seconds(body.expires_at),
        properties=body.properties,
        profiles=None if body.profiles is None else tuple(body.profiles),
        aliases=tuple(NewAlias(alias.name, alias.description) for alias in body.aliases or ()),
        compression=body.compression_algorithm,
    )


def _wishes_of_headers(raw: web.Request) -> Wishes:
    """Of an upload: its body is the image, so all else is in headers, lists and maps url-encoded."""
    profiles = raw.headers.get("X-LXD-profiles")
    properties = raw.headers.get("X-LXD-properties")
    return Wishes(
        filename=_text(raw, "X-LXD-filename"),
        public=raw.headers.get("X-LXD-public", "").lower() in _TRUE,
        properties=None if properties is None else dict(_pairs(raw, "X-LXD-properties")),
        profiles=None if profiles is None else tuple(name for key, name in _pairs(raw, "X-LXD-profiles") if key == "profile"),
        aliases=tuple(NewAlias(name) for key, name in _pairs(raw, "X-LXD-aliases") if key == "alias"),
    )


def _text(raw: web.Request, header: str) -> str:
    """A header that is text; bytes that are not UTF-8 would come as lone surrogates, which no database takes."""
    text = raw.headers.get(header, "")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise BadRequest(f"Header {header} is not UTF-8")
    return text


def _pairs(raw: web.Request, header: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(_text(raw, header), keep_blank_values=True, max_num_fields=MAX_PROPERTIES)
    except ValueError as error:
        raise BadRequest(f"Header {header}: {error}") from error


def _seconds(text: str | None) -> int:
    """A date as it is stored; 0 for never, as for all before 1970."""
    try:
        return max(0, int(clock.parse(text or "")))
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"Invalid date {(text or '')[:40]!r}") from error
