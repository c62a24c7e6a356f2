"""/1.0/images/aliases. Names may have slashes: the rest of the path is the name."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from atoll.api import listing, response
from atoll.api.request import Request
from atoll.api.route import Access, Route
from atoll.api.routes.images import scope
from atoll.api.schema import images as schema
from atoll.api.schema.common import Rename
from atoll.domain.entities import ImageAlias
from atoll.services.events import with_project
from atoll.services.images.aliases import ImageAliases, alias_url


class ImageAliasRoutes:
    """Routes of image aliases."""

    def __init__(self, aliases: ImageAliases) -> None:
        self._aliases = aliases

    def table(self) -> Sequence[Route]:
        path = "/1.0/images/aliases/{name:.+}"
        return (
            Route("GET", "/1.0/images/aliases", self.list_, Access.PUBLIC, "List image aliases", result=list[schema.AliasEntry]),
            Route("POST", "/1.0/images/aliases", self.create, Access.PROJECT, "Add an image alias", schema.AliasesPost),
            Route("GET", path, self.get, Access.PUBLIC, "Get an image alias", result=schema.AliasEntry),
            Route("PUT", path, self.put, Access.PROJECT, "Replace an image alias", schema.AliasPut),
            Route("PATCH", path, self.patch, Access.PROJECT, "Change an image alias", schema.AliasPut),
            Route("POST", path, self.rename, Access.PROJECT, "Rename an image alias", Rename),
            Route("DELETE", path, self.delete, Access.PROJECT, "Delete an image alias"),
        )

    async def list_(self, request: Request) -> web.StreamResponse:
        """URLs, without the project as in LXD, or objects; those of public images for strangers."""
        project, public_only = scope(request)
        found = await self._aliases.find_all(project, public_only=public_only)
        return listing.answer(request, found, url=lambda each: alias_url(each.name), render=_render)

    async def get(self, request: Request) -> web.StreamResponse:
        project, public_only = scope(request)
        alias = await self._aliases.find(project, request.path("name"), public_only=public_only)
        return response.sync(_render(alias), etag=_subject(alias))

    async def create(self, request: Request) -> web.StreamResponse:
        """A new name for an image."""
        body = await request.body(schema.AliasesPost)
        await self._aliases.create(request.project, body.name, body.description, body.target, caller=request.caller)
        return response.created(with_project(alias_url(body.name), request.project))

    async def put(self, request: Request) -> web.StreamResponse:
        alias = await self._find(request)
        body = await request.body(schema.AliasPut)
        await self._update(request, alias, body.description or "", body.target or "")
        return response.empty()

    async def patch(self, request: Request) -> web.StreamResponse:
        """Change what is given."""
        alias = await self._find(request)
        body = await request.body(schema.AliasPut)
        description = alias.description if body.description is None else body.description
        await self._update(request, alias, description, alias.target if body.target is None else body.target)
        return response.empty()

    async def rename(self, request: Request) -> web.StreamResponse:
        body = await request.body(Rename)
        await self._aliases.rename(request.project, request.path("name"), body.name, caller=request.caller)
        return response.created(with_project(alias_url(body.name), request.project))

    async def delete(self, request: Request) -> web.StreamResponse:
        """Forget it."""
        await self._aliases.delete(request.project, request.path("name"), caller=request.caller)
        return response.empty()

    async def _find(self, request: Request) -> ImageAlias:
        alias = await self._aliases.find(request.project, request.path("name"))
        request.check_etag(_subject(alias))
        return alias

    async def _update(self, request: Request, alias: ImageAlias, description: str, target: str) -> None:
        await self._aliases.update(request.project, alias.name, description, target, caller=request.caller)


def _render(alias: ImageAlias) -> schema.AliasEntry:
    return schema.AliasEntry(alias.description, alias.target, alias.name, alias.type)


def _subject(alias: ImageAlias) -> list[object]:
    """What a PUT of the alias could change."""
    return [alias.description, alias.target]
