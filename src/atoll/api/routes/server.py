"""GET / and /1.0: what the server is, and its configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import web

from atoll.api import extensions, response
from atoll.api.request import Request, etag
from atoll.api.route import Access, Route
from atoll.domain import names
from atoll.domain.entities import DEFAULT_PROJECT
from atoll.services.server import ServerInfo
from atoll.services.settings import SettingsService


class ServerPut(msgspec.Struct):
    """Body of PUT and PATCH."""

    config: dict[str, Any] | None = None


class ServerRoutes:
    """The server's own routes. Answers to GET are kept encoded until something in them changes."""

    def __init__(self, settings: SettingsService, info: ServerInfo) -> None:
        self._settings = settings
        self._info = info
        self._state: tuple[object, ...] = ()
        self._tag = ""
        self._views: dict[str, bytes] = {}
        settings.on_commit(self._forget)

    def table(self) -> Sequence[Route]:
        return (
            Route("GET", "/", self.versions, Access.PUBLIC, "Get the supported API versions", tag="server"),
            Route("GET", "/1.0", self.get, Access.PUBLIC, "Get the server environment and configuration", tag="server"),
            Route("PUT", "/1.0", self.put, Access.ADMIN, "Update the server configuration", ServerPut, tag="server"),
            Route(
                "PATCH", "/1.0", self.patch, Access.ADMIN, "Partially update the server configuration", ServerPut, tag="server"
            ),
        )

    async def versions(self, _: Request) -> web.Response:
        """The one version there is."""
        return response.sync(["/1.0"])

    async def get(self, request: Request) -> web.Response:
        """The whole to an administrator, without configuration to a restricted client, hardly anything to a stranger."""
        if not request.caller.trusted:
            return response.sync(self._public(auth="untrusted"))
        project = names.project(request.query("project") or DEFAULT_PROJECT)
        await self._refresh()
        head = self._views["admin" if request.caller.is_admin else "restricted"]
        body = head + msgspec.json.encode(project) + b"}}}\n"
        return web.Response(body=body, headers={"Content-Type": "application/json", "ETag": self._tag})

    async def put(self, request: Request) -> web.Response:
        body = await request.body(ServerPut)
        request.check_etag(self._settings.shown())
        await self._settings.replace(body.config or {}, caller=request.caller)
        return response.empty()

    async def patch(self, request: Request) -> web.Response:
        body = await request.body(ServerPut)
        request.check_etag(self._settings.shown())
        await self._settings.patch(body.config or {}, caller=request.caller)
        return response.empty()

    def _forget(self) -> None:
        self._views = {}

    async def _refresh(self) -> None:
        """Encode the answers again if they are out of date; each ends where the project's name goes."""
        state = await self._info.state()
        if self._views and state == self._state:
            return
        environment = await self._info.environment()
        shown = self._settings.shown()
        self._views = {view: self._encode(view, config, environment) for view, config in (("admin", shown), ("restricted", {}))}
        self._tag = etag(shown)
        self._state = state

    def _encode(self, view: str, config: dict[str, Any], environment: dict[str, Any]) -> bytes:
        metadata = {"config": config, **self._public(auth="trusted"), "environment": environment}
        body = response.sync(metadata).body
        assert isinstance(body, bytes), "a synchronous answer is one piece"
        return body.removesuffix(b"}}}\n") + b',"project":'

    def _public(self, *, auth: str) -> dict[str, Any]:
        return {
            "api_extensions": extensions.ADVERTISED,
            "api_status": "stable",
            "api_version": "1.0",
            "auth": auth,
            "public": False,
            "auth_methods": self._info.auth_methods(),
        }
