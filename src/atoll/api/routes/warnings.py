"""/1.0/warnings."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from atoll.api import listing, response
from atoll.api.request import Request
from atoll.api.route import Access, Route
from atoll.api.schema import objects as schema
from atoll.domain import entities
from atoll.services.warnings import WarningService


class WarningRoutes:
    """Routes of warnings."""

    def __init__(self, warnings: WarningService) -> None:
        self._warnings = warnings

    def table(self) -> Sequence[Route]:
        base, one = "/1.0/warnings", "/1.0/warnings/{uuid}"
        return (
            Route("GET", base, self.list_, Access.ADMIN, "List warnings", result=list[schema.Warning]),
            Route("GET", one, self.get, Access.ADMIN, "Get a warning", result=schema.Warning),
            Route("PUT", one, self.put, Access.ADMIN, "Set a warning's status", schema.WarningPut),
            Route("PATCH", one, self.put, Access.ADMIN, "Set a warning's status", schema.WarningPut),
            Route("DELETE", one, self.delete, Access.ADMIN, "Delete a warning"),
        )

    async def list_(self, request: Request) -> web.StreamResponse:
        """Of a project and of none, or all."""
        scope = request.scope if request.query("project") else None
        found = await self._warnings.find_all(scope)
        return listing.answer(request, found, url=lambda w: f"/1.0/warnings/{w.uuid}", render=_warning)

    async def get(self, request: Request) -> web.StreamResponse:
        return response.sync(_warning(await self._warnings.find(request.path("uuid"))))

    async def put(self, request: Request) -> web.StreamResponse:
        """Acknowledge it, or take that back."""
        body = await request.body(schema.WarningPut)
        await self._warnings.set_status(request.path("uuid"), body.status, caller=request.caller)
        return response.empty()

    async def delete(self, request: Request) -> web.StreamResponse:
        await self._warnings.delete(request.path("uuid"), caller=request.caller)
        return response.empty()


def _warning(warning: entities.Warning) -> schema.Warning:
    return schema.Warning(
        uuid=warning.uuid,
        location=warning.member,
        project=warning.project,
        type=warning.type,
        count=warning.count,
        first_seen_at=warning.first_seen_at,
        last_seen_at=warning.last_seen_at,
        last_message=warning.last_message,
        severity=warning.severity,
        status=warning.status,
        entity_url=warning.entity_url,
    )
