"""The kinds of answers, in LXD's envelope."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from atoll.api.request import etag as make_etag
from atoll.services.operations import Operation

_JSON = {"Content-Type": "application/json"}


def _envelope(body: Mapping[str, Any], *, status: int, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, headers={**_JSON, **(headers or {})})


_SYNC_HEAD = b'{"type":"sync","status":"Success","status_code":200,"operation":"","error_code":0,"error":"","metadata":'


def sync(metadata: Any, *, etag: Any = None, headers: Mapping[str, str] | None = None) -> web.Response:
    """200 with an object; `etag` is what its tag is made from."""
    extra = dict(headers or {})
    if etag is not None:
        extra["ETag"] = make_etag(etag)
    return web.Response(body=_SYNC_HEAD + msgspec.json.encode(metadata) + b"}\n", headers={**_JSON, **extra})


def empty() -> web.Response:
    """200 with nothing to say."""
    return sync({})


def created(location: str) -> web.Response:
    """201 with the new object's URL."""
    body = {
        "type": "sync",
        "status": "Success",
        "status_code": 200,
        "operation": "",
        "error_code": 0,
        "error": "",
        "metadata": None,
    }
    return _envelope(body, status=201, headers={"Location": location})


def backup(path: Path) -> web.FileResponse:
    """200 with the file of a backup, which the kernel sends."""
    headers = {"Content-Disposition": "inline;filename=backup.tar", "Content-Type": "application/octet-stream"}
    return web.FileResponse(path, headers=headers)


def operation(running: Operation) -> web.Response:
    """202 with the operation; its creator, who gets this answer, also gets its secrets."""
    body = {
        "type": "async",
        "status": "Operation created",
        "status_code": 100,
        "operation": running.url,
        "error_code": 0,
        "error": "",
        "metadata": running.wire(secrets=True),
    }
    return _envelope(body, status=202, headers={"Location": running.url})
