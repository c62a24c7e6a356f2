"""The unix socket and the HTTPS listener: who may connect, how, and where."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import stat
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
import uvloop

from atoll.api import listeners, serving, tls_listener
from atoll.domain.errors import Conflict


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


async def set_address(server: Any, address: str) -> Any:
    return await (await server.unix())("PATCH", "/1.0", {"config": {"core.https_address": address}})


async def answers(address: str) -> bool:
    try:
        _, writer = await asyncio.open_connection(*address.rsplit(":", 1))
    except OSError:
        return False
    writer.close()
    return True


async def test_the_socket_has_its_mode_and_its_callers_their_names(server: Any) -> None:
    assert stat.S_IMODE(server.paths.socket.stat().st_mode) == 0o660
    await (await server.unix())("PATCH", "/1.0", {"config": {"user.a": "1"}})
    event = await server.events.next()
    assert event.metadata["requestor"] == {"username": "root", "protocol": "unix", "address": "@"}


async def test_a_stale_socket_is_replaced_a_live_one_is_not(server: Any) -> None:
    with pytest.raises(Conflict, match="Another daemon"):
        listeners._bind_unix(server.paths.socket, "root")
    stale = server.paths.root / "stale.socket"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(stale))
    listeners._bind_unix(stale, "no such group").close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_any_certificate_is_taken_and_the_trusted_one_trusted(server: Any, make_certificate: Any, version: Any) -> None:
    await server.listen()
    certificate = make_certificate()
    added = await (await server.unix())("POST", "/1.0/certificates", {"certificate": certificate.base64, "name": "me"})
    assert added.status == 201
    assert (await (await server.https(certificate, version=version))("GET", "/1.0")).metadata["auth"] == "trusted"
    assert (await (await server.https(make_certificate(), version=version))("GET", "/1.0")).metadata["auth"] == "untrusted"
    assert (await (await server.https(None, version=version))("GET", "/1.0")).metadata["auth"] == "untrusted"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1")
async def test_old_protocols_are_refused(server: Any) -> None:
    await server.listen()
    client = await server.https(version=ssl.TLSVersion.TLSv1_1)
    with pytest.raises(aiohttp.ClientConnectionError):
        await client("GET", "/1.0")


@pytest.mark.parametrize("days", [(-20, -1), (1, 20)])
async def test_dates_are_checked(server: Any, make_certificate: Any, days: tuple[float, float]) -> None:
    await server.listen()
    admin, valid, certificate = await server.unix(), make_certificate(), make_certificate(days=days)
    await admin("POST", "/1.0/certificates", {"certificate": valid.base64})
    answer = await admin("PATCH", f"/1.0/certificates/{valid.fingerprint}", {"certificate": certificate.base64})
    assert answer.status == 200
    assert (await (await server.https(certificate))("GET", "/1.0")).metadata["auth"] == "untrusted"


async def test_trust_ends_on_an_open_connection(server: Any, make_certificate: Any) -> None:
    await server.listen()
    certificate = make_certificate()
    admin, client = await server.unix(), await server.https(certificate)
    await admin("POST", "/1.0/certificates", {"certificate": certificate.base64})
    assert (await client("GET", "/1.0")).metadata["auth"] == "trusted"
    await admin("DELETE", f"/1.0/certificates/{certificate.fingerprint[:12]}")
    assert (await client("GET", "/1.0")).metadata["auth"] == "untrusted"


async def test_the_address_changes_live(server: Any) -> None:
    first = await server.listen()
    client = await server.https()
    assert (await client("GET", "/1.0")).status == 200
    second = f"127.0.0.1:{free_port()}"
    assert (await set_address(server, second)).status == 200
    assert await answers(second)
    assert not await answers(first)
    assert (await client("GET", "/1.0")).status == 200, "an open connection goes on"
    assert (await set_address(server, "")).status == 200
    assert not await answers(second)


async def test_a_port_stays_while_the_host_part_changes(server: Any) -> None:
    port = free_port()
    for address in (f"127.0.0.1:{port}", f":{port}", f"0.0.0.0:{port}", f"[::]:{port}", f"127.0.0.1:{port}"):
        assert (await set_address(server, address)).status == 200, address
        assert await answers(f"127.0.0.1:{port}")


async def test_an_address_that_cannot_be_is_refused_and_the_old_one_stays(server: Any) -> None:
    address = await server.listen()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = address.rsplit(":", 1)[1]
        for bad in (f"127.0.0.1:{taken.getsockname()[1]}", f"192.0.2.7:{port}", "192.0.2.7:8443", "host.invalid:1"):
            refused = await set_address(server, bad)
            assert refused.status == 400, bad
            assert "https address" in refused.error
            assert await answers(address)
            assert server.settings.text("core.https_address") == address


async def test_the_address_stays_when_another_key_is_refused(server: Any) -> None:
    address = await server.listen()

    async def refuse(_: Any) -> None:
        raise Conflict("no")

    server.settings.on_change("user.", refuse)
    other = f"127.0.0.1:{free_port()}"
    answer = await (await server.unix())("PATCH", "/1.0", {"config": {"core.https_address": other, "user.x": "1"}})
    assert answer.status == 409
    assert await answers(address)
    assert not await answers(other)


async def test_a_start_without_its_address_still_serves_locally(server: Any, caplog: Any) -> None:
    address = await server.listen()
    await server.listeners.stop()
    host, port = address.rsplit(":", 1)
    with socket.create_server((host, int(port))):
        app = aiohttp.web.Application()
        await server.listeners.start(app, group="root")
    assert "Cannot listen" in caplog.text
    assert server.paths.socket.exists()


async def test_cors_headers_are_those_configured(server: Any) -> None:
    await server.listen()
    client, admin = await server.https(), await server.unix()
    assert "Access-Control-Allow-Origin" not in (await client("GET", "/1.0", Origin="https://ui.example")).headers
    config = {
        "core.https_allowed_origin": "https://ui.example",
        "core.https_allowed_methods": "GET, POST",
        "core.https_allowed_headers": "Content-Type",
        "core.https_allowed_credentials": "true",
    }
    await admin("PATCH", "/1.0", {"config": config})
    for method, path in (("GET", "/1.0"), ("OPTIONS", "/1.0/anything"), ("GET", "/1.0/nothing")):
        headers = (await client(method, path, Origin="https://ui.example")).headers
        assert headers["Access-Control-Allow-Origin"] == "https://ui.example"
        assert headers["Access-Control-Allow-Methods"] == "GET, POST"
        assert headers["Access-Control-Allow-Headers"] == "Content-Type"
        assert headers["Access-Control-Allow-Credentials"] == "true"
    assert (await client("OPTIONS", "/1.0", Origin="https://ui.example")).status == 200
    assert "Access-Control-Allow-Origin" not in (await client("GET", "/1.0")).headers


async def test_pages_of_other_sites_are_kept_out_unless_named(server: Any) -> None:
    client = await server.unix()
    foreign = {"Origin": "https://ui.example", "Sec_Fetch_Site": "cross-site"}
    assert (await client("GET", "/1.0", **foreign)).status == 403
    await client("PATCH", "/1.0", {"config": {"core.https_allowed_origin": "*"}})
    assert (await client("GET", "/1.0", **foreign)).status == 403
    await client("PATCH", "/1.0", {"config": {"core.https_allowed_origin": "https://ui.example"}})
    assert (await client("GET", "/1.0", **foreign)).status == 200


async def test_a_slow_head_is_cut_off(make_server: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "IDLE_SECONDS", 0.3)
    monkeypatch.setattr(tls_listener, "HANDSHAKE_SECONDS", 0.3)
    server = make_server()
    await server.start()
    try:
        address = await server.listen()
        reader, writer = await asyncio.open_unix_connection(str(server.paths.socket))
        writer.write(b"GET /1.0 HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        assert await asyncio.wait_for(reader.read(), 30) == b""
        writer.close()
        reader, writer = await asyncio.open_connection(*address.rsplit(":", 1))
        assert await asyncio.wait_for(reader.read(), 30) == b"", "no handshake"
        writer.close()
    finally:
        await server.stop()


AMBIGUOUS = (
    "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    "Content-Length: 5\r\nContent-Length: 6\r\n",
    "Content-Length: +5\r\n",
    "Content-Length: 5, 5\r\n",
    "Transfer-Encoding: chunked, identity\r\n",
    "Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n",
    "X-A: b\r\n folded: c\r\n",
    "X-A : b\r\n",
    "X-A: b\nX-C: d\r\n",
    "X-A: b\rX-C: d\r\n",
    "X-A: \0\r\n",
)


async def test_a_request_that_two_servers_could_read_differently_is_refused(server: Any) -> None:
    for head in AMBIGUOUS:
        reader, writer = await asyncio.open_unix_connection(str(server.paths.socket))
        writer.write(f"PUT /1.0 HTTP/1.1\r\nHost: x\r\n{head}\r\nhelloGET /1.0 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), 30)
        assert answer[9:13] == b"400 ", (head, answer)
        assert answer.count(b"HTTP/1.") == 1, "the rest is not taken for another request"
        writer.close()


async def test_the_certificate_is_made_once_and_replaced_live(server: Any, make_certificate: Any) -> None:
    certificate, key = server.paths.server_certificate
    assert [stat.S_IMODE(path.stat().st_mode) for path in (certificate, key)] == [0o600, 0o600]
    assert await server.tls.reload_if_changed() is False
    address = await server.listen()
    new = make_certificate(name="new server")
    os.replace(new.certificate, certificate)
    assert await server.tls.reload_if_changed() is False, "the key does not fit yet"
    os.replace(new.key, key)
    assert await server.tls.reload_if_changed() is True
    assert server.tls.fingerprint == new.fingerprint
    shown = await asyncio.to_thread(ssl.get_server_certificate, (address.rsplit(":", 1)[0], int(address.rsplit(":", 1)[1])))
    assert ssl.PEM_cert_to_DER_cert(shown) == new.der
    assert (await (await server.unix())("GET", "/1.0")).metadata["environment"]["certificate_fingerprint"] == new.fingerprint


def test_all_of_it_on_uvloop(make_server: Callable[[], Any], make_certificate: Any) -> None:
    async def run() -> None:
        server = make_server()
        await server.start()
        try:
            await server.listen()
            certificate = make_certificate()
            admin = await server.unix()
            await admin("POST", "/1.0/certificates", {"certificate": certificate.base64})
            assert (await (await server.https(certificate))("GET", "/1.0")).metadata["auth"] == "trusted"
            port = free_port()
            for address in (f"127.0.0.1:{port}", f":{port}", f"127.0.0.1:{port}"):
                assert (await set_address(server, address)).status == 200, address
            assert (await set_address(server, f"192.0.2.7:{port}")).status == 400
            assert (await (await server.https(certificate))("GET", "/1.0")).metadata["auth"] == "trusted"
        finally:
            await server.stop()
        assert not server.paths.socket.exists()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
