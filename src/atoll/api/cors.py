"""Cross-origin requests of browsers, by the keys core.https_allowed_{origin,methods,headers,credentials}."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler

from atoll.services.settings import SettingsService

ALLOWED = web.RequestKey("atoll.origin_allowed", bool)
"""Set on a request from the very origin that the server's configuration names; `*` names none."""

_HEADERS = {
    "core.https_allowed_origin": "Access-Control-Allow-Origin",
    "core.https_allowed_methods": "Access-Control-Allow-Methods",
    "core.https_allowed_headers": "Access-Control-Allow-Headers",
}


class Cors:
    """Adds the headers, and answers the question (OPTIONS) that browsers ask first."""

    def __init__(self, settings: SettingsService) -> None:
        self._settings = settings
        self._headers: dict[str, str] = {}
        settings.on_commit(self._read)
        self._read()

    def _read(self) -> None:
        headers = {header: self._settings.text(key) for key, header in _HEADERS.items() if self._settings.text(key)}
        if self._settings.flag("core.https_allowed_credentials"):
            headers["Access-Control-Allow-Credentials"] = "true"
        self._headers = headers

    def install(self, app: web.Application) -> None:
        """Put it around everything else; before the application is started."""

        @web.middleware
        async def cors(request: web.Request, handler: Handler) -> web.StreamResponse:
            origin = request.headers.get("Origin")
            if origin is not None:
                request[ALLOWED] = origin == self._headers.get("Access-Control-Allow-Origin")
                if request.method == "OPTIONS":
                    return web.Response()
            return await handler(request)

        app.middlewares.insert(0, cors)
        app.on_response_prepare.append(self._add_headers)

    async def _add_headers(self, raw: web.Request, response: web.StreamResponse) -> None:
        if self._headers and "Origin" in raw.headers:
            response.headers.update(self._headers)
