"""Websockets of other servers: what one may do with who opens it."""

from __future__ import annotations

import asyncio
import ctypes
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from atoll.domain.errors import Unavailable
from atoll.host import websocket, x509

SECRET = "5ecret"


@pytest.fixture
async def elsewhere(tmp_path: Path) -> AsyncIterator[tuple[str, bytes, list[str]]]:
    """The address of a server that redirects to another one, its certificate (DER), and what the other one was asked for."""
    asked: list[str] = []

    async def ask(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response()

    async def redirect(request: web.Request) -> web.Response:
        raise web.HTTPFound(inside)

    pem, key = x509.make_self_signed("host.example")
    (tmp_path / "both").write_bytes(key + pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both")
    runners, ports = [], []
    for answer, tls in ((ask, None), (redirect, context)):
        app = web.Application()
        app.router.add_get("/{path:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        runners.append(runner)
        ports.append(runner.addresses[0][1])
    inside = f"http://127.0.0.1:{ports[0]}/inside"
    yield f"wss://LOCALHOST:{ports[1]}/ws?secret={SECRET}", ssl.PEM_cert_to_DER_cert(pem.decode()), asked
    for runner in runners:
        await runner.cleanup()


async def test_a_server_leads_nowhere_else(elsewhere: tuple[str, bytes, list[str]]) -> None:
    url, certificate, asked = elsewhere
    with pytest.raises(Unavailable, match="redirects") as caught:
        async with websocket.connect(url, known=certificate, largest=1000):
            pass
    assert asked == []
    assert SECRET not in str(caught.value)


async def test_no_secret_is_told_of_a_server_that_is_none(elsewhere: tuple[str, bytes, list[str]]) -> None:
    url, certificate, _ = elsewhere
    port = url.rpartition(":")[2].partition("/")[0]
    for bad in (url.replace(port, "1"), url.replace(f":{port}", f":{port}9999"), url.replace("wss:", "nothing:")):
        with pytest.raises(Unavailable) as caught:
            async with websocket.connect(bad, known=certificate, largest=1000):
                pass
        assert SECRET not in str(caught.value)


_SO_ATTACH_FILTER = 26


def _go_away(link: socket.socket) -> None:
    """Let nothing reach that socket any more, as if its machine were off: each packet is filtered out."""
    program = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0))  # return 0 bytes of it
    link.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program)))


@pytest.mark.parametrize("sending", [True, False])
async def test_a_peer_that_is_gone_is_noticed_whatever_is_under_way(monkeypatch: pytest.MonkeyPatch, sending: bool) -> None:
    monkeypatch.setattr(websocket, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(websocket, "SILENT_SECONDS", 0.5)
    served: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def serve(request: web.Request) -> web.WebSocketResponse:
        accepted = web.WebSocketResponse(timeout=0.1)
        await accepted.prepare(request)
        websocket.notice_silence(accepted)
        link = websocket.WebSocket(accepted)
        try:
            while sending:
                await link.send(bytes(1 << 16))
            assert await link.receive() is None
        except ConnectionError:
            assert sending
        served.set_result(None)
        return accepted

    app = web.Application()
    app.router.add_get("/", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    began = time.monotonic()
    async with aiohttp.ClientSession() as session:
        peer = await session.ws_connect(f"http://127.0.0.1:{runner.addresses[0][1]}/")
        _go_away(peer.get_extra_info("socket"))
        await asyncio.wait_for(served, 10)
        assert time.monotonic() - began >= 0.5
    await runner.cleanup()
