"""The guest API's application: its own routes and dispatch, apart from the daemon's API. Answers are LXD's: plain, without an
envelope; errors are a status and a line of text."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler as AiohttpHandler

from atoll.api import errors, image_transfer, websocket
from atoll.api.guest.door import GuestCaller
from atoll.domain.errors import AtollError, BadRequest, Forbidden
from atoll.services.guest import service
from atoll.services.guest.events import GuestEvents, GuestEventType, GuestListener
from atoll.services.guest.service import GuestService
from atoll.services.instances import cloud_init
from atoll.services.instances.core import Loaded

log = logging.getLogger(__name__)

Who = Callable[[web.Request], GuestCaller | None]
Handler = Callable[[web.Request, Loaded], Awaitable[web.StreamResponse]]


class GuestApi:
    """All routes of guests."""

    def __init__(self, guest: GuestService, events: GuestEvents, who: Who) -> None:
        self._guest = guest
        self._events = events
        self._who = who

    def build(self) -> web.Application:
        """The application. No route takes a body."""
        app = web.Application(middlewares=[_errors])
        for path, handler in (
            ("/", self.root),
            ("/1.0", self.api),
            ("/1.0/config", self.config),
            ("/1.0/config/{key:.+}", self.config_key),
            ("/1.0/devices", self.devices),
            ("/1.0/events", self.events),
            ("/1.0/images/{fingerprint}/export", self.image),
            ("/1.0/meta-data", self.meta_data),
        ):
            app.router.add_get(path, self._bind(handler))
        return app

    def _bind(self, handler: Handler) -> AiohttpHandler:
        async def bound(raw: web.Request) -> web.StreamResponse:
            caller = self._who(raw)
            if caller is None:
                raise Forbidden("Not authorized")
            if not caller.is_root:
                return _text("Access denied for non-root user\n", status=401)
            return await handler(raw, await self._guest.load(caller.machine))

        return bound

    async def root(self, raw: web.Request, loaded: Loaded) -> web.StreamResponse:
        """The versions."""
        return _json(["/1.0"])

    async def api(self, raw: web.Request, loaded: Loaded) -> web.StreamResponse:
        """The version."""
        return _json({"api_version": "1.0"})

    async def config(self, raw: web.Request, loaded: Loaded) -> web.StreamResponse:
        """The keys that a guest sees, as URLs."""
        return _json(service.config_urls(loaded))

    async def config_key(self, raw: web.Request, loaded: Loaded) -> web.StreamResponse:
        """The value of one, as it is."""
        return _raw(service.config_value(loaded, raw.match_info["key"]))

    async def devices(self, raw: web.Request, loaded: Loaded) -> web.StreamResponse:
        """By name."""
        return _json(service.devices(loaded))

    async def meta_data(self, raw: web.Request, loaded: Loaded) -> web.StreamResponse:
        """For cloud-init."""
        return _raw(cloud_init.meta_data(loaded.record.name, loaded.expanded.config))

    async def image(self, raw: web.Request, loaded: Loaded) -> web.StreamResponse:
        """The file, or both files of a split image."""
        files = await self._guest.image(loaded, raw.match_info["fingerprint"])
        if len(files) == 1:
            return image_transfer.file_answer(files[0])
        return await image_transfer.send_parts(raw, files)

    async def events(self, raw: web.Request, loaded: Loaded) -> web.StreamResponse:
        """A websocket that gets them as they happen; whoever does not ask for one gets them as an answer without end."""
        listener = self._events.listen(loaded.machine, _types(raw))
        try:
            if raw.headers.get(hdrs.UPGRADE, "").lower() == "websocket":
                return await _to_websocket(raw, listener)
            return await _to_stream(raw, listener)
        finally:
            self._events.forget(listener)


def _types(raw: web.Request) -> frozenset[GuestEventType]:
    words = raw.query.get("type", "")
    try:
        return frozenset(GuestEventType(word) for word in words.split(",")) if words else frozenset(GuestEventType)
    except ValueError as error:
        raise BadRequest(f"type: unknown event type in {words[:60]!r}") from error


async def _to_websocket(raw: web.Request, listener: GuestListener) -> web.StreamResponse:
    socket = await websocket.accept(raw, largest=websocket.MAX_CONTROL)

    async def send() -> None:
        while (event := await listener.next()) is not None:
            await socket.send_str(msgspec.json.encode(event.wire()).decode())
        await socket.close()

    await websocket.while_open(socket, send())
    return socket


async def _to_stream(raw: web.Request, listener: GuestListener) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Type": "application/json"})
    await answer.prepare(raw)
    while (event := await listener.next()) is not None:
        await answer.write(msgspec.json.encode(event.wire()) + b"\n")
    await answer.write_eof()
    return answer


def _json(body: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(body) + b"\n", headers={"Content-Type": "application/json"})


def _raw(text: str) -> web.Response:
    return web.Response(body=text.encode(), headers={"Content-Type": "application/octet-stream"})


def _text(text: str, *, status: int) -> web.Response:
    return web.Response(text=text, status=status)


@web.middleware
async def _errors(request: web.Request, handler: AiohttpHandler) -> web.StreamResponse:
    try:
        return await handler(request)
    except AtollError as error:
        code, message = errors.status_of(error), str(error)
    except web.HTTPException as error:
        code, message = error.status, error.reason or "Bad request"
    except ConnectionError:
        raise
    except Exception:  # a defect of ours: the guest learns nothing of it, the log all
        log.exception("A guest's %s %s failed", request.method, request.path)
        code, message = 500, "Internal error"
    return _text(f"{message}\n", status=code)
