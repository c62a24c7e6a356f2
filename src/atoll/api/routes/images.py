"""/1.0/images: lists, uploads, change, download, tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import msgspec
from aiohttp import web

from atoll.api import image_sources, image_transfer, image_wishes, listing, response
from atoll.api.request import Request
from atoll.api.route import Access, Route
from atoll.api.schema import images as schema
from atoll.domain import clock, names
from atoll.domain.entities import DEFAULT_PROJECT, Image, ImageSource
from atoll.domain.errors import BadRequest, NotFound, Unsupported
from atoll.services.images import ImageService, receive
from atoll.services.images.jobs import BuildOrder, ImageJobs
from atoll.services.images.model import DEFAULT_PROFILES, Changes
from atoll.services.images.push import Expected, ImageInbox, ImagePusher, Order
from atoll.services.images.sources import DIRECT, Source
from atoll.services.operations import Operation

_JSON = ("application/json", "application/x-www-form-urlencoded")  # the second is what curl says of JSON
_ONE = "/1.0/images/{fingerprint}"


class ImageRoutes:
    """Routes of images themselves."""

    def __init__(self, images: ImageService, jobs: ImageJobs, inbox: ImageInbox, pusher: ImagePusher) -> None:
        self._images = images
        self._jobs = jobs
        self._inbox = inbox
        self._pusher = pusher

    def table(self) -> Sequence[Route]:
        changes = schema.ImagePut
        return (
            Route("GET", "/1.0/images", self.list_, Access.PUBLIC, "List images", result=list[schema.Image]),
            Route("POST", "/1.0/images", self.create, Access.PUBLIC, "Add an image", schema.ImagesPost, is_async=True),
            Route("GET", _ONE, self.get, Access.PUBLIC, "Get an image", result=schema.Image),
            Route("PUT", _ONE, self.put, Access.PROJECT, "Replace an image's description", changes),
            Route("PATCH", _ONE, self.patch, Access.PROJECT, "Change an image's description", changes),
            Route("DELETE", _ONE, self.delete, Access.PROJECT, "Delete an image", is_async=True),
            Route("GET", f"{_ONE}/export", self.export, Access.PUBLIC, "Download an image"),
            Route("POST", f"{_ONE}/export", self.push, Access.PROJECT, "Push an image", schema.ImageExportPost, is_async=True),
            Route("POST", f"{_ONE}/refresh", self.refresh, Access.PROJECT, "Look for a newer version", is_async=True),
            Route("POST", f"{_ONE}/secret", self.secret, Access.PROJECT, "Make a download token", is_async=True),
        )

    # --- looking -------------------------------------------------------------------------------------------------------

    async def list_(self, request: Request) -> web.StreamResponse:
        """URLs or objects; public ones for strangers. As in LXD the URLs do not say the project: clients, pylxd among them, take
        what is behind the last slash for the fingerprint."""
        project, public_only = scope(request)
        found = await self._images.find_all(project, public_only=public_only)
        return listing.answer(request, found, url=lambda each: f"/1.0/images/{each.fingerprint}", render=_render)

    async def get(self, request: Request) -> web.StreamResponse:
        """One; a private one also for whoever has a token."""
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
        """By a JSON body from something that is there, else the body is the image. A stranger may upload one with a token."""
        if request.raw.content_type in _JSON:
            project = request.project
            return response.operation(await self._create_from(request, project, await request.body(schema.ImagesPost)))
        return response.operation(await self._upload(request))

    async def _upload(self, request: Request) -> Operation:
        headers = request.raw.headers
        expected, secret = headers.get("X-LXD-fingerprint", ""), headers.get("X-LXD-secret", "")
        asked = self._inbox.redeem(request.query("project") or DEFAULT_PROJECT, expected, secret) if secret else None
        project, caller = (request.project, request.caller) if asked is None else (asked.project, asked.caller)
        if expected:
            names.fingerprint(expected)
        wishes = image_wishes.of_headers(request.raw)
        if asked is not None:
            profiles = wishes.profiles if asked.wishes.profiles is None else asked.wishes.profiles
            wishes = dataclasses.replace(asked.wishes, profiles=profiles, filename=wishes.filename)
        await self._images.check_wishes(project, wishes, caller=caller)
        if request.raw.content_type == "multipart/form-data":
            staged = await receive.split(self._images.files, image_transfer.parts(request.raw))
        else:
            staged = await receive.unified(self._images.files, image_transfer.chunks(request.raw))
        return self._jobs.upload(project, staged, wishes, expected=expected, caller=caller, watched=asked is not None)

    async def _create_from(self, request: Request, project: str, body: schema.ImagesPost) -> Operation:
        source = body.source or schema.ImagesPostSource()
        caller, wishes = request.caller, image_wishes.of_body(body)
        if source.mode == "push":
            return await self._inbox.expect(Expected(project, source.fingerprint, wishes, caller))
        match source.type:
            case "build":
                order = BuildOrder(source.distribution, source.release, source.variant, tuple(source.packages or ()))
                return await self._jobs.build(project, order, wishes, caller=caller)
            case "image" if source.server:
                remote = image_sources.remote(source, type=source.image_type)
                return await self._jobs.pull(project, remote, wishes, caller=caller)
            case "image":
                image = await self._source_image(request, source)
                return await self._jobs.copy(project, image, wishes, caller=caller)
            case "instance" | "container":
                return await self._jobs.publish(project, source.name, "", wishes, caller=caller)
            case "snapshot":
                name, _, snapshot = source.name.partition("/")
                names.snapshot(snapshot)
                return await self._jobs.publish(project, name, snapshot, wishes, caller=caller)
            case "virtual-machine":
                raise Unsupported("Images of virtual machines are not supported")
            case "url":
                return await self._jobs.pull(project, Source(source.url, DIRECT), wishes, caller=caller)
            case _:
                raise BadRequest(f"Invalid source type {source.type[:40]!r} of an image")

    async def _source_image(self, request: Request, source: schema.ImagesPostSource) -> Image:
        """The image to copy. What the caller may not see is not there."""
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
        """Replace; as in LXD, without profiles it has the default one."""
        image = await self._find(request)
        request.check_etag(_subject(image))
        body = await request.body(schema.ImagePut)
        changes = Changes(
            bool(body.public),
            bool(body.auto_update),
            image_wishes.seconds(body.expires_at),
            body.properties or {},
            DEFAULT_PROFILES if body.profiles is None else tuple(body.profiles),
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
            image.expiry_date if body.expires_at is None else image_wishes.seconds(body.expires_at),
            {**image.properties, **(body.properties or {})},
            image.profiles if body.profiles is None else tuple(body.profiles),
        )
        await self._images.update(request.project, image, changes, caller=request.caller)
        return response.empty()

    async def delete(self, request: Request) -> web.StreamResponse:
        image = await self._find(request)
        return response.operation(await self._jobs.delete(request.project, image, caller=request.caller))

    # --- downloading ---------------------------------------------------------------------------------------------------

    async def export(self, request: Request) -> web.StreamResponse:
        """The file, or both files of a split image. A token opens this once."""
        image, token = await self._find_shown(request)
        if request.raw.method != "HEAD" and token is not None and not self._jobs.use(token):
            raise NotFound("Image not found")
        files = await self._images.files.parts(image)
        if request.raw.method != "HEAD":
            self._images.tell("image-retrieved", scope(request)[0], image.fingerprint, request.caller)
        if len(files) == 1:
            return image_transfer.file_answer(files[0])
        return await image_transfer.send_parts(request.raw, files)

    async def push(self, request: Request) -> web.StreamResponse:
        """Send it to another server, with the token that the other gave."""
        image = await self._find(request)
        body = await request.body(schema.ImageExportPost)
        order = Order(body.target, body.certificate, body.secret, body.project, tuple(body.profiles or ()))
        return response.operation(self._pusher.push(request.project, image, order, caller=request.caller))

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


def _subject(image: Image) -> list[object]:
    """What a PUT of the image could change."""
    return [image.public, image.auto_update, image.expiry_date, image.properties, image.profiles]
