"""/openapi.json: the description of all routes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from aiohttp import web

from atoll.api import openapi
from atoll.api.request import Request
from atoll.api.route import Access, Route


class OpenApiRoutes:
    """Describes the given routes and its own. Says nothing of this server but what its release can do."""

    def __init__(self, others: Iterable[Route]) -> None:
        self._routes = (*others, *self.table())
        self._document = b""

    def table(self) -> Sequence[Route]:
        return (Route("GET", "/openapi.json", self.get, Access.PUBLIC, "Get this description of the API", result=dict),)

    async def get(self, _: Request) -> web.StreamResponse:
        """Made when it is first asked for, then kept."""
        if not self._document:
            self._document = msgspec.json.encode(openapi.describe(self._routes))
        return web.Response(body=self._document, headers={"Content-Type": "application/json"})
