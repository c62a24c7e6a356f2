"""/1.0/metrics: figures of running instances, in the format that Prometheus reads."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from aiohttp import web

from atoll.api.request import Request
from atoll.api.route import Access, Route
from atoll.domain import names
from atoll.domain.errors import Forbidden
from atoll.services.instances.core import InstanceCore
from atoll.services.settings import SettingsService
from atoll.services.trust import METRICS_PATH

if TYPE_CHECKING:
    from atoll.services.metrics import MetricsService

AUTHENTICATION = "core.metrics_authentication"

SERVED_APART = frozenset({"/", "/1.0", METRICS_PATH})
"""The paths that core.metrics_address serves, for GET."""


class MetricsRoutes:
    """The one route. Clients need a trusted certificate, be it for metrics only, unless core.metrics_authentication is off."""

    def __init__(self, core: InstanceCore, settings: SettingsService) -> None:
        self._core = core
        self._settings = settings

    @cached_property
    def _metrics(self) -> MetricsService:
        from atoll.services import metrics  # many servers are never asked

        return metrics.MetricsService(self._core)

    def table(self) -> Sequence[Route]:
        return (Route("GET", METRICS_PATH, self.get, Access.PUBLIC, "Get metrics", tag="metrics"),)

    async def get(self, request: Request) -> web.Response:
        """Of one project, else of all that the client may see."""
        text = await self._metrics.text(self._projects(request))
        return web.Response(body=text, headers={"Content-Type": "text/plain"})

    def _projects(self, request: Request) -> frozenset[str] | None:
        caller, project = request.caller, request.query("project")
        is_open = not self._settings.flag(AUTHENTICATION)
        if not caller.trusted and not is_open:
            raise Forbidden("Not authorized")
        if project:
            names.project(project)
            if not is_open and not caller.may_measure(project):
                raise Forbidden("Not authorized")
            return frozenset({project})
        return caller.projects if caller.restricted and not is_open else None


def served_apart(routes: Sequence[Route]) -> list[Route]:
    """Of all routes, those of the address of metrics."""
    return [route for route in routes if route.method == "GET" and route.path in SERVED_APART]
