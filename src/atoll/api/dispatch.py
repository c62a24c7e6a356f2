"""From aiohttp to handlers: authentication, access, aliases, errors. One place each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from aiohttp import web
from aiohttp.typedefs import Handler as AiohttpHandler

from atoll.api import cors, errors
from atoll.api.request import Request
from atoll.api.route import Access, Handler, Route
from atoll.domain.caller import Caller, Protocol
from atoll.domain.errors import AtollError, BadRequest, Forbidden, NotFound, Unavailable

log = logging.getLogger(__name__)

Authenticate = Callable[[web.Request], Caller]
"""Tells who sent a request. Never fails: a stranger is NOBODY."""

FAMILIES = ("containers", "virtual-machines")
"""Paths that are aliases of /1.0/instances."""

_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


def build(routes: Iterable[Route], authenticate: Authenticate) -> web.Application:
    """The application with all routes; `client_max_size` is off because bodies have their own budgets."""
    app = web.Application(client_max_size=0, middlewares=[_errors])
    for route in routes:
        _add(app, route, authenticate, family="")
        if route.path.startswith("/1.0/instances"):
            for family in FAMILIES:
                _add(app, route, authenticate, family=family)
    return app


def _add(app: web.Application, route: Route, authenticate: Authenticate, *, family: str) -> None:
    path = route.path.replace("/1.0/instances", f"/1.0/{family}", 1) if family else route.path
    handler = _bind(route.handler, route.access, authenticate, family)
    app.router.add_route(route.method, path, handler)
    if route.method == "GET":
        app.router.add_route("HEAD", path, handler)


def _bind(handler: Handler, access: Access, authenticate: Authenticate, family: str) -> AiohttpHandler:
    async def bound(raw: web.Request) -> web.StreamResponse:
        request = Request(raw, authenticate(raw), family=family)
        _check_browser(raw)
        _check_access(request, access)
        return await handler(request)

    return bound


def _check_access(request: Request, access: Access) -> None:
    caller = request.caller
    if access is Access.PUBLIC:
        return
    if access is Access.LOCAL and caller.protocol is not Protocol.UNIX:
        raise Forbidden("Only available on the local socket")
    if not caller.trusted:
        raise Forbidden("Not authorized")
    if access is Access.ADMIN and not caller.is_admin:
        raise Forbidden("Not authorized")
    if access is Access.PROJECT and not request.flag("all-projects"):
        _ = request.project


def _check_browser(raw: web.Request) -> None:
    """A page of another site may not use the certificate of whoever reads it (CVE-2025-54286), unless the config names it."""
    headers = raw.headers
    if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin") and not raw.get(cors.ALLOWED, False):
        raise Forbidden("Cross-site requests are not allowed")
    if (
        raw.method in _WRITES
        and "Sec-Fetch-Mode" in headers
        and raw.content_type
        not in (
            "application/json",
            "application/octet-stream",
        )
    ):
        raise BadRequest("Requests of browsers must be of type application/json")


@web.middleware
async def _errors(request: web.Request, handler: AiohttpHandler) -> web.StreamResponse:
    """Every failure leaves as LXD's error envelope."""
    try:
        return await handler(request)
    except AtollError as error:
        code, message = errors.status_of(error), str(error)
        if code >= 500:
            # `waitready` asks until the daemon has started.
            level = logging.DEBUG if isinstance(error, Unavailable) else logging.WARNING
            log.log(level, "%s %s failed: %s", request.method, request.path, message)
    except web.HTTPNotFound:
        code, message = 404, str(NotFound("Not found"))
    except web.HTTPMethodNotAllowed:
        code, message = 501, f"Method {request.method} is not available on {request.path}"
    except web.HTTPException as error:
        code, message = error.status, error.reason or "Bad request"
    except ConnectionError:
        raise
    except Exception as error:  # a defect of ours: the client gets a clean 500, the log the trace
        log.exception("%s %s failed", request.method, request.path)
        code, message = 500, f"Internal error: {type(error).__name__}"
    return web.Response(body=errors.body(code, message), status=code, headers={"Content-Type": "application/json"})
