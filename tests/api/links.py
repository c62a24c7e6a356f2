"""The websockets of an operation that another server would connect, in the hands of a test."""

from __future__ import annotations

from typing import Any

import aiohttp

from atoll.domain import protobuf
from atoll.domain.migration_header import Control

SECONDS = 30
Links = dict[str, aiohttp.ClientWebSocketResponse]


async def linked(app: Any, content: dict[str, Any]) -> Links:
    """Those of an operation whose creator we are."""
    assert content["metadata"]["class"] == "websocket"
    secrets = content["metadata"]["metadata"]
    assert set(secrets) == {"control", "fs"}
    soon = aiohttp.ClientWSTimeout(ws_close=0.5)  # who is not heard has nobody to say goodbye to
    return {
        name: await app.session.ws_connect(f"{content['operation']}/websocket?secret={secret}", timeout=soon)
        for name, secret in secrets.items()
    }


async def told(socket: aiohttp.ClientWebSocketResponse, kind: type[Any]) -> Any:
    """The next message of that kind."""
    return protobuf.decode(kind, await socket.receive_bytes(timeout=SECONDS))


async def refusal(links: Links) -> str:
    """What the other side says of its failure."""
    answer = await told(links["control"], Control)
    assert not answer.success
    assert answer.message
    return str(answer.message)
