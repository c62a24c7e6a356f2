"""Routes as data: what the dispatcher serves and what the OpenAPI description is generated from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from aiohttp import web

from atoll.api.request import Request

Handler = Callable[[Request], Awaitable[web.StreamResponse]]


class Access(StrEnum):
    """Who may call a route. The dispatcher asks this; handlers never have to."""

    PUBLIC = "public"  # anybody; the handler shows less to who is not trusted
    TRUSTED = "trusted"  # any trusted client; what it sees is limited to its projects
    PROJECT = "project"  # a trusted client that may use the request's project
    ADMIN = "admin"  # an unrestricted client
    LOCAL = "local"  # the unix socket only


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one path. `body` and `result` are wire types; `is_async` answers with an operation."""

    method: str
    path: str
    handler: Handler
    access: Access
    summary: str
    body: Any = None
    result: Any = None
    is_async: bool = False
    extension: str = ""
    tag: str = ""


class Routes(Protocol):
    """A group of routes, constructed with the services it needs."""

    def table(self) -> Sequence[Route]:
        """Its routes."""
