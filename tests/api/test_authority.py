"""A certificate authority of clients: its list of the revoked, which changes while connections are open."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from atoll.api import listeners
from atoll.domain.errors import HostError
from atoll.services import trust

CERTIFICATES = "/1.0/certificates"


def write_revoked(folder: Path, authority: Any, *revoked: Any, signer: Any = None) -> None:
    """Put a list in place that revokes these identities."""
    now = datetime.now(UTC)
    crl = x509.CertificateRevocationListBuilder().issuer_name(authority.certificate.subject)
    crl = crl.last_update(now).next_update(now + timedelta(days=1))
    for each in revoked:
        serial = x509.load_der_x509_certificate(each.der).serial_number
        crl = crl.add_revoked_certificate(x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build())
    signed = crl.sign((signer or authority).key, hashes.SHA384())
    aside = folder / "ca.crl.new"
    aside.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    aside.replace(folder / "ca.crl")


@pytest.fixture
async def server(authority: Any, make_server: Any) -> AsyncIterator[Any]:
    """A server with an authority, which trusts whom that has signed."""
    made = make_server()
    await made.start()
    try:
        await made.listen()
        await (await made.unix())("PATCH", "/1.0", {"config": {"core.trust_ca_certificates": "true"}})
        yield made
    finally:
        await made.stop()


async def auth(client: Any) -> str:
    return str((await client("GET", "/1.0")).metadata["auth"])


def store(server: Any) -> trust.TrustStore:
    found: trust.TrustStore = server.certificates._store
    return found


async def test_a_revocation_holds_on_an_open_connection(server: Any, authority: Any, make_certificate: Any) -> None:
    good, bad = make_certificate(signer=authority), make_certificate(signer=authority)
    stays, goes = await server.https(good), await server.https(bad)
    assert [await auth(client) for client in (stays, goes)] == ["trusted", "trusted"]
    write_revoked(server.paths.root, authority, bad)
    await store(server).reload_if_changed()
    assert [await auth(client) for client in (stays, goes)] == ["trusted", "untrusted"]
    write_revoked(server.paths.root, authority)
    await store(server).reload_if_changed()
    assert await auth(goes) == "trusted", "the list is what counts, each time anew"


async def test_what_streams_ends_with_the_trust(
    server: Any, authority: Any, make_certificate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "_PART_SECONDS", 0.05)
    good, bad = make_certificate(signer=authority), make_certificate(signer=authority)
    connections = []
    for identity in (good, bad):
        connector = aiohttp.TCPConnector(ssl=server._context(identity, None))
        session = await server._clients.enter_async_context(aiohttp.ClientSession(connector=connector))
        async with session.get(f"https://{server.settings.text('core.https_address')}/1.0") as answer:
            await answer.read()
        connections.append(next(iter(connector._conns.values()))[0][0])
    write_revoked(server.paths.root, authority, bad)
    await store(server).reload_if_changed()
    await connections[1].closed
    assert connections[0].is_connected() and not connections[1].is_connected()
    await (await server.unix())("PATCH", "/1.0", {"config": {"core.trust_ca_certificates": "false"}})
    await connections[0].closed


async def test_a_list_that_cannot_be_used_changes_nothing(
    server: Any, authority: Any, make_certificate: Any, caplog: pytest.LogCaptureFixture
) -> None:
    bad = make_certificate(signer=authority)
    client, folder = await server.https(bad), server.paths.root
    write_revoked(folder, authority, bad)
    await store(server).reload_if_changed()
    (folder / "ca.crl").write_text("half a l")
    await store(server).reload_if_changed()
    assert await auth(client) == "untrusted"
    os.unlink(folder / "ca.crl")
    await store(server).reload_if_changed()
    assert await auth(client) == "untrusted"
    os.unlink(folder / "server.ca")
    await store(server).reload_if_changed()
    assert await auth(await server.https(make_certificate())) == "untrusted", "nobody gets in by taking the authority away"
    assert len([each for each in caplog.records if "authority" in each.message]) == 3


async def test_a_list_of_somebody_else_keeps_the_daemon_from_starting(
    authority: Any, make_server: Any, make_certificate: Any
) -> None:
    server, other = make_server(), make_certificate(signer=authority)
    write_revoked(server.paths.root, authority, other, signer=type(authority)(authority.certificate, _another_key()))
    with pytest.raises(HostError, match="not signed by the authority"):
        await server.start()
    await server.stop()


def _another_key() -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP384R1())


async def test_no_entry_helps_who_is_not_signed(server: Any, authority: Any, make_certificate: Any) -> None:
    foreign, expired = make_certificate(), make_certificate(signer=authority, days=(-3, -1))
    admin = await server.unix()
    assert (await admin("POST", CERTIFICATES, {"certificate": foreign.base64})).status == 201
    assert await auth(await server.https(foreign)) == "untrusted"
    answer = await admin("PATCH", f"{CERTIFICATES}/{foreign.fingerprint}", {"certificate": expired.base64})
    assert answer.status == 200
    assert await auth(await server.https(expired)) == "untrusted"


async def test_the_authority_is_asked_once_about_each(
    server: Any, authority: Any, make_certificate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust, "_VERDICTS", 3)
    signed = make_certificate(signer=authority)
    client = await server.https(signed)
    assert await auth(client) == "trusted"
    monkeypatch.setattr(type(store(server)._authority), "accepts", lambda *_: pytest.fail("asked again"))
    assert await auth(client) == "trusted"
    monkeypatch.undo()
    monkeypatch.setattr(trust, "_VERDICTS", 3)
    for _ in range(8):
        assert await auth(await server.https(make_certificate())) == "untrusted"
    assert len(store(server)._verdicts) <= 3, "strangers cannot fill the memory"
