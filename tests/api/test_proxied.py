"""Clients behind proxies that speak the PROXY protocol: who they are taken for, and by whom it may be said."""

from __future__ import annotations

import asyncio
import json
import ssl
import struct
from typing import Any

import pytest

from atoll.host.proxy_protocol import SIGNATURE
from atoll.services import attempts

CLIENT = "203.0.113.7"
LINE = f"PROXY TCP4 {CLIENT} 127.0.0.1 1234 443\r\n".encode()
BLOCK = SIGNATURE + b"\x21\x11\x00\x0c" + bytes([203, 0, 113, 7, 127, 0, 0, 1]) + struct.pack(">HH", 1234, 443)
CERTIFICATES = "/1.0/certificates"


class Proxied:
    """Requests on connections of their own, with something said ahead of TLS."""

    def __init__(self, server: Any, address: str) -> None:
        self._server = server
        self._address = address

    async def ask(self, head: bytes, method: str, path: str, body: Any = None, *, identity: Any = None) -> dict[str, Any]:
        """The envelope of the answer. ConnectionError where the server closes instead."""
        host, _, port = self._address.rpartition(":")
        reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        try:
            writer.write(head)
            await asyncio.wait_for(writer.start_tls(self._server._context(identity, None), server_hostname="127.0.0.1"), 30)
            content = json.dumps(body).encode() if body is not None else b""
            lines = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(content)}\r\n\r\n"
            writer.write(lines.encode() + content)
            answer = await asyncio.wait_for(reader.read(), 30)
        except ssl.SSLError as error:
            raise ConnectionError(str(error)) from error
        finally:
            writer.close()
        if not answer:
            raise ConnectionError("closed")
        return dict(json.loads(answer.partition(b"\r\n\r\n")[2]))


async def behind(server: Any, proxies: str, *, address: str = "") -> Proxied:
    """A server that believes those addresses."""
    await (await server.unix())("PATCH", "/1.0", {"config": {"core.https_trusted_proxy": proxies}})
    listening = await server.listen()
    if address:
        listening = f"{address}:{listening.rpartition(':')[2]}"
        await (await server.unix())("PATCH", "/1.0", {"config": {"core.https_address": listening}})
    return Proxied(server, listening.replace("[::]", "127.0.0.1"))


async def requestor(server: Any, proxied: Proxied, head: bytes, certificate: Any) -> str:
    """The address that an event shows of who made a change."""
    await proxied.ask(head, "PATCH", "/1.0", {"config": {"user.n": str(id(head))}}, identity=certificate)
    while True:
        event = await asyncio.wait_for(server.events.next(), 30)
        by = event.metadata.get("requestor", {})
        if by.get("protocol") == "tls":
            return str(by["address"])


@pytest.mark.parametrize("head", [LINE, BLOCK])
async def test_a_trusted_proxys_client_is_who_asks(server: Any, make_certificate: Any, head: bytes) -> None:
    proxied, certificate = await behind(server, "10.9.8.7, 127.0.0.1"), make_certificate()
    await (await server.unix())("POST", CERTIFICATES, {"certificate": certificate.base64})
    assert await requestor(server, proxied, head, certificate) == CLIENT
    assert await requestor(server, proxied, b"", certificate) == "127.0.0.1", "without a head, the proxy itself"


async def test_a_proxy_is_known_on_a_socket_of_both_families(server: Any, make_certificate: Any) -> None:
    proxied, certificate = await behind(server, "127.0.0.1", address="[::]"), make_certificate()
    await (await server.unix())("POST", CERTIFICATES, {"certificate": certificate.base64})
    assert await requestor(server, proxied, LINE, certificate) == CLIENT
    assert await requestor(server, proxied, b"", certificate) == "127.0.0.1"


@pytest.mark.parametrize("proxies", ["", "10.9.8.7", "::1"])
async def test_nobody_else_is_believed(server: Any, proxies: str) -> None:
    proxied = await behind(server, proxies)
    for head in (LINE, BLOCK):
        with pytest.raises(ConnectionError):
            await proxied.ask(head, "GET", "/1.0")
    assert (await proxied.ask(b"", "GET", "/1.0"))["status_code"] == 200


async def test_who_is_believed_changes_live(server: Any) -> None:
    proxied, admin = await behind(server, "127.0.0.1"), await server.unix()
    assert (await proxied.ask(LINE, "GET", "/1.0"))["status_code"] == 200
    await admin("PATCH", "/1.0", {"config": {"core.https_trusted_proxy": ""}})
    with pytest.raises(ConnectionError):
        await proxied.ask(LINE, "GET", "/1.0")
    assert (await admin("PATCH", "/1.0", {"config": {"core.https_trusted_proxy": "proxy.example"}})).status == 400


async def test_a_broken_head_ends_the_connection_and_nothing_else(server: Any) -> None:
    proxied = await behind(server, "127.0.0.1")
    for head in (b"PROXY TCP4 nonsense\r\n", b"PROXY " + b"x" * 200, SIGNATURE + b"\x11\x11\0\0", b"GET / HTTP/1.1\r\n"):
        with pytest.raises(ConnectionError):
            await proxied.ask(head, "GET", "/1.0")
        assert (await proxied.ask(LINE, "GET", "/1.0"))["status_code"] == 200


async def test_failed_attempts_count_against_the_client_not_the_proxy(server: Any, make_certificate: Any) -> None:
    proxied, certificate = await behind(server, "127.0.0.1"), make_certificate()
    await (await server.unix())("PATCH", "/1.0", {"config": {"core.trust_password": "sesame"}})

    async def log_in(head: bytes, password: str) -> dict[str, Any]:
        return await proxied.ask(head, "POST", CERTIFICATES, {"password": password}, identity=certificate)

    for _ in range(attempts._LIMIT):
        assert (await log_in(LINE, "wrong"))["error_code"] == 403
    assert "Too many" in (await log_in(LINE, "sesame"))["error"]
    other = LINE.replace(CLIENT.encode(), b"203.0.113.8")
    assert (await log_in(other, "sesame"))["status_code"] == 200


async def test_a_proxy_that_says_nothing_is_closed(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.api.tls_listener.HANDSHAKE_SECONDS", 0.2)
    proxied = await behind(server, "127.0.0.1")
    reader, writer = await asyncio.open_connection(*proxied._address.rsplit(":", 1))
    writer.write(b"PROXY TCP4 ")
    assert await asyncio.wait_for(reader.read(), 30) == b""
    writer.close()
