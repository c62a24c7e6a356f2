"""/1.0/storage-pools."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from atoll.api import listing, response
from atoll.api.request import Request
from atoll.api.route import Access, Route
from atoll.api.schema import objects as schema
from atoll.api.schema.common import DescriptionConfig
from atoll.domain import entities, names
from atoll.services.storage import StorageService
from atoll.services.volume_urls import pool_path

_HOST_KEYS = ("source", "volatile.initial_source")


class StorageRoutes:
    """Routes of storage pools."""

    def __init__(self, storage: StorageService) -> None:
        self._storage = storage

    def table(self) -> Sequence[Route]:
        base, one = "/1.0/storage-pools", "/1.0/storage-pools/{pool}"
        return (
            Route("GET", base, self.list_, Access.TRUSTED, "List storage pools", result=list[schema.StoragePool]),
            Route("POST", base, self.create, Access.ADMIN, "Create a storage pool", schema.StoragePoolsPost),
            Route("GET", one, self.get, Access.TRUSTED, "Get a storage pool", result=schema.StoragePool),
            Route("PUT", one, self.put, Access.ADMIN, "Replace a storage pool", DescriptionConfig),
            Route("PATCH", one, self.patch, Access.ADMIN, "Change a storage pool", DescriptionConfig),
            Route("DELETE", one, self.delete, Access.ADMIN, "Delete a storage pool"),
            Route("GET", f"{one}/resources", self.resources, Access.TRUSTED, "Get a pool's space", result=dict),
        )

    async def list_(self, request: Request) -> web.StreamResponse:
        found = await self._storage.find_all()
        used = {p.name: await self._storage.used_by(p) for p in found} if request.recursion else {}
        return listing.answer(
            request,
            found,
            url=lambda p: pool_path(p.name),
            render=lambda p: self._render(request, p, used.get(p.name, [])),
        )

    async def get(self, request: Request) -> web.StreamResponse:
        pool = await self._find(request)
        rendered = self._render(request, pool, await self._storage.used_by(pool))
        return response.sync(rendered, etag=_tag(pool))

    async def create(self, request: Request) -> web.StreamResponse:
        body = await request.body(schema.StoragePoolsPost)
        await self._storage.create(body.name, body.driver, body.description, body.config or {}, caller=request.caller)
        return response.created(pool_path(body.name))

    async def put(self, request: Request) -> web.StreamResponse:
        body = await request.body(DescriptionConfig)
        pool = await self._find(request)
        request.check_etag(_tag(pool))
        await self._storage.update(pool.name, *body.replacing(), caller=request.caller)
        return response.empty()

    async def patch(self, request: Request) -> web.StreamResponse:
        """Change what is given."""
        body = await request.body(DescriptionConfig)
        pool = await self._find(request)
        request.check_etag(_tag(pool))
        changed = body.changing(pool.description, pool.config)
        await self._storage.update(pool.name, *changed, caller=request.caller)
        return response.empty()

    async def delete(self, request: Request) -> web.StreamResponse:
        """Remove an unused one."""
        pool = await self._find(request)
        await self._storage.delete(pool.name, caller=request.caller)
        return response.empty()

    async def resources(self, request: Request) -> web.StreamResponse:
        """Space and inodes."""
        pool = await self._find(request)
        found = await self._storage.resources(pool.name)
        return response.sync(
            {
                "space": {"used": found.space_used, "total": found.space_total},
                "inodes": {"used": found.inodes_used, "total": found.inodes_total},
            }
        )

    async def _find(self, request: Request) -> entities.StoragePool:
        return await self._storage.find(names.storage_pool(request.path("pool")))

    def _render(self, request: Request, pool: entities.StoragePool, used_by: list[str]) -> schema.StoragePool:
        """Where a pool is on the host is for administrators only."""
        config = dict(pool.config)
        if not request.caller.is_admin:
            config = {key: value for key, value in config.items() if key not in _HOST_KEYS}
        status = self._storage.status(pool.name)
        return schema.StoragePool(pool.name, pool.description, pool.driver, config, request.visible(used_by), status, ["none"])


def _tag(pool: entities.StoragePool) -> list[object]:
    return [pool.name, pool.driver, pool.config]
