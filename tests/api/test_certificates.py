"""The trust store: entries, the ways into it, and what a restricted client may do to it."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from atoll.db import certificates as rows
from atoll.db import projects
from atoll.domain import clock
from atoll.host import passwords
from atoll.services import attempts, certificates
from atoll.services.events import EventType

ALL = "/1.0/certificates"


async def add(server: Any, certificate: Any, **fields: Any) -> str:
    """Put a certificate into the store; returns its URL."""
    answer = await (await server.unix())("POST", ALL, {"certificate": certificate.base64, "name": "me", **fields})
    assert answer.status == 201, answer.body
    return str(answer.headers["Location"])


async def auth(server: Any, certificate: Any) -> str:
    return str((await (await server.https(certificate))("GET", "/1.0")).metadata["auth"])


async def token(server: Any, **fields: Any) -> tuple[str, Any]:
    """(the text of a new token as `lxc` makes it, its operation)."""
    answer = await (await server.unix())("POST", ALL, {"token": True, "name": "laptop", **fields})
    assert answer.status == 202, answer.body
    metadata = answer.metadata["metadata"]
    parts = {key: metadata[key] for key in ("secret", "fingerprint", "addresses")}
    text = {**parts, "client_name": metadata["request"]["name"], "expires_at": metadata["expiresAt"]}
    return base64.b64encode(json.dumps(text).encode()).decode(), answer.metadata


async def test_an_entry_from_its_making_to_its_end(server: Any, make_certificate: Any) -> None:
    certificate, client = make_certificate(), await server.unix()
    url = await add(server, certificate, projects=None)
    assert url == f"{ALL}/{certificate.fingerprint}"
    entry = {
        "name": "me", "type": "client", "restricted": False, "projects": [],
        "certificate": certificate.certificate.read_text(), "fingerprint": certificate.fingerprint,
    }  # fmt: skip
    assert (await client("GET", ALL)).metadata == [url]
    assert (await client("GET", f"{ALL}?recursion=1")).metadata == [entry]
    got = await client("GET", f"{ALL}/{certificate.fingerprint[:12]}")
    assert got.metadata == entry
    await server.make_project("blue")
    changes = {"name": "you", "type": "client", "restricted": True, "projects": ["blue"]}
    assert (await client("PUT", url, changes, If_Match=got.headers["ETag"])).status == 200
    assert (await client("PUT", url, changes, If_Match=got.headers["ETag"])).status == 412
    assert (await client("PATCH", url, {"name": "them"})).status == 200
    assert (await client("GET", url)).metadata == {**entry, **changes, "name": "them"}
    assert (await client("DELETE", url)).status == 200
    assert (await client("GET", url)).status == 404
    actions = [f"certificate-{what}" for what in ("created", "updated", "updated", "deleted")]
    assert await server.actions() == [(action, url) for action in actions]


@pytest.mark.parametrize("certificate", ["", "%%%", "bm90aGluZw==", "-----BEGIN CERTIFICATE-----\nabcd", "A" * 70000])
async def test_what_is_no_certificate_is_refused(server: Any, certificate: str) -> None:
    assert (await (await server.unix())("POST", ALL, {"certificate": certificate})).status == 400


async def test_other_bad_requests(server: Any, make_certificate: Any) -> None:
    client, certificate = await server.unix(), make_certificate()
    for fields in ({"type": "rbac"}, {"projects": ["a/b"]}, {"name": "a\nb"}, {"name": "x" * 300}):
        assert (await client("POST", ALL, {"certificate": certificate.base64, **fields})).status == 400, fields
    for fingerprint in ("%25", "zz", "..%2f"):
        answer = await client("GET", f"{ALL}/{fingerprint}")
        assert (answer.status, answer.error) == (404, "Certificate not found"), fingerprint
    answer = await client("POST", ALL, {"certificate": certificate.base64, "projects": ["nowhere"]})
    assert (answer.status, answer.error) == (404, "Project 'nowhere' not found")
    for days, why in (((-9, -2), "The provided certificate is expired"), ((2, 9), "The provided certificate isn't valid yet")):
        answer = await client("POST", ALL, {"certificate": make_certificate(days=days).base64})
        assert (answer.status, answer.error) == (400, why)
    assert (await client("POST", ALL, {"token": True})).status == 400
    assert (await client("GET", ALL)).metadata == []


async def test_pem_is_taken_too_a_name_may_be_left_out_and_twice_is_once(server: Any, make_certificate: Any) -> None:
    certificate, client = make_certificate(name="from the subject"), await server.unix()
    body = {"certificate": certificate.certificate.read_text()}
    assert (await client("POST", ALL, body)).status == 201
    assert (await client("GET", f"{ALL}?recursion=1")).metadata[0]["name"] == "from the subject"
    assert (await client("POST", ALL, body)).status == 409


async def test_a_certificate_is_in_one_entry(server: Any, make_certificate: Any) -> None:
    one, other, client = make_certificate(), make_certificate(), await server.unix()
    url, _ = await add(server, one), await add(server, other)
    for method in ("PUT", "PATCH"):
        answer = await client(method, url, {"name": "x", "type": "client", "certificate": other.certificate.read_text()})
        assert (answer.status, answer.error) == (409, "Certificate already in trust store")
    assert (await client("PATCH", url, {"certificate": one.certificate.read_text(), "name": "y"})).status == 200, "its own"
    assert {entry["name"] for entry in (await client("GET", f"{ALL}?recursion=1")).metadata} == {"me", "y"}
    expired = make_certificate(days=(-9, -2))
    assert (await client("PATCH", url, {"certificate": expired.certificate.read_text()})).status == 200
    assert (await client("GET", url)).status == 404


async def test_a_certificate_stays_what_it_is_for(server: Any, make_certificate: Any) -> None:
    client, url = await server.unix(), await add(server, make_certificate())
    for method, fields in (("PUT", {}), ("PUT", {"type": "metrics"}), ("PUT", {"type": "x"}), ("PATCH", {"type": "metrics"})):
        answer = await client(method, url, fields)
        assert (answer.status, answer.error) == (403, "The certificate type cannot be changed"), (method, fields)
    fingerprint = url.rpartition("/")[2]
    assert (await client("GET", f"{ALL}/{fingerprint.upper()}")).metadata["name"] == "me"


async def test_a_servers_certificate_is_a_client_with_all_rights(server: Any, make_certificate: Any) -> None:
    await server.listen()
    certificate = make_certificate()
    await add(server, certificate, type="server")
    client = await server.https(certificate)
    assert (await client("GET", f"{ALL}?recursion=1")).metadata[0]["type"] == "server"
    await server.make_project("blue")
    limits = {"name": "me", "type": "server", "restricted": True, "projects": ["blue"]}
    assert (await client("PUT", f"{ALL}/{certificate.fingerprint}", limits)).status == 200
    assert (await client("PATCH", "/1.0", {"config": {"user.a": "1"}})).status == 403, "a restriction holds for each type"


async def test_the_password_lets_a_client_in(server: Any, make_certificate: Any) -> None:
    await server.listen()
    await (await server.unix())("PATCH", "/1.0", {"config": {"core.trust_password": "sesame"}})
    certificate = make_certificate()
    client = await server.https(certificate)
    assert (await client("POST", ALL, {"type": "client"})).status == 403
    assert (await client("POST", ALL, {"type": "client", "password": "wrong"})).status == 403
    assert (await client("POST", ALL, {"type": "metrics", "password": "sesame"})).status == 403
    assert (await client("POST", ALL, {"type": "client", "password": "sesame", "name": "me"})).status == 201
    assert (await client("GET", "/1.0")).metadata["auth"] == "trusted"


async def test_without_a_password_none_is_right(server: Any, make_certificate: Any) -> None:
    await server.listen()
    client = await server.https(make_certificate())
    for password in ("", "true", "anything"):
        assert (await client("POST", ALL, {"password": password})).status == 403
    assert (await (await server.https())("POST", ALL, {"password": "x"})).status == 400, "no certificate to add"


async def test_passwords_cannot_be_tried_out(server: Any, make_certificate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await server.listen()
    await (await server.unix())("PATCH", "/1.0", {"config": {"core.trust_password": "sesame"}})
    client = await server.https(make_certificate())
    for _ in range(attempts._LIMIT):
        assert "Too many" not in (await client("POST", ALL, {"password": "wrong"})).error
    assert "Too many" in (await client("POST", ALL, {"password": "sesame"})).error
    monkeypatch.setattr(server.certificates._attempts, "_clock", lambda: time.monotonic() + 61)
    assert (await client("POST", ALL, {"password": "sesame"})).status == 201


async def test_passwords_cannot_be_tried_out_side_by_side(
    server: Any, make_certificate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = 0

    def verify(_: str, password: str) -> bool:
        nonlocal tried
        tried += 1
        return password == "sesame"

    monkeypatch.setattr(passwords, "verify", verify)
    await server.listen()
    certificate = make_certificate()
    clients = [await server.https(certificate) for _ in range(12)]
    answers = await asyncio.gather(
        *(client("POST", ALL, {"password": f"guess {number}"}) for number, client in enumerate(clients))
    )
    assert {answer.status for answer in answers} == {403}
    assert tried == attempts._LIMIT
    server.certificates._waiting = certificates._WAITING
    monkeypatch.setattr(server.certificates._attempts, "_clock", lambda: time.monotonic() + 61)
    assert (await clients[0]("POST", ALL, {"password": "sesame"})).status == 503
    assert (await (await server.unix())("POST", ALL, {"certificate": make_certificate().base64})).status == 201, (
        "not who is known"
    )


async def test_a_token_lets_one_client_in_once(server: Any, make_certificate: Any) -> None:
    address = await server.listen()
    text, operation = await token(server)
    assert operation["class"] == "token"
    assert operation["metadata"]["addresses"] == [address]
    assert operation["metadata"]["fingerprint"] == server.tls.fingerprint
    assert operation["metadata"]["expiresAt"] == "0001-01-01T00:00:00Z"
    clients = [await server.https(make_certificate()) for _ in range(4)]
    statuses = await asyncio.gather(*(client("POST", ALL, {"password": text}) for client in clients))
    assert sorted(answer.status for answer in statuses) == [201, 403, 403, 403]
    entries = (await (await server.unix())("GET", f"{ALL}?recursion=1")).metadata
    assert [entry["name"] for entry in entries] == ["laptop"]


async def test_a_tokens_secret_is_in_no_event(server: Any, make_certificate: Any) -> None:
    await server.listen()
    listener = server.hub.listen(frozenset({EventType.OPERATION}), projects=frozenset({"blue"}))
    text, operation = await token(server)
    assert (await (await server.https(make_certificate()))("POST", ALL, {"password": text})).status == 201
    listener.close()
    told = [event.metadata async for event in _until_closed(listener)]
    assert {each["id"] for each in told} == {operation["id"]}
    assert told[-1]["status"] == "Success"
    assert operation["metadata"]["secret"] not in json.dumps(told)


async def _until_closed(listener: Any) -> AsyncIterator[Any]:
    while (event := await listener.next()) is not None:
        yield event


async def test_a_token_grants_what_its_maker_said(server: Any, make_certificate: Any) -> None:
    await server.listen()
    await server.make_project("blue")
    text, _ = await token(server, restricted=True, projects=["blue"])
    certificate = make_certificate()
    wishes = {"password": text, "restricted": False, "projects": ["default"], "name": "root", "type": "client"}
    assert (await (await server.https(certificate))("POST", ALL, wishes)).status == 201
    entry = (await (await server.unix())("GET", f"{ALL}/{certificate.fingerprint}")).metadata
    assert (entry["name"], entry["restricted"], entry["projects"]) == ("laptop", True, ["blue"])


async def test_tokens_that_are_forged_cancelled_or_expired(server: Any, make_certificate: Any, until: Any) -> None:
    await server.listen()
    client = await server.https(make_certificate())
    text, operation = await token(server)
    forged = {**json.loads(base64.b64decode(text)), "secret": "0" * 64}
    assert (await client("POST", ALL, {"password": base64.b64encode(json.dumps(forged).encode()).decode()})).status == 403
    renamed = {**json.loads(base64.b64decode(text)), "client_name": "other"}
    assert (await client("POST", ALL, {"password": base64.b64encode(json.dumps(renamed).encode()).decode()})).status == 403
    server.operations.cancel(server.operations.find(operation["id"]))
    assert (await client("POST", ALL, {"password": text})).status == 403
    await (await server.unix())("PATCH", "/1.0", {"config": {"core.remote_token_expiry": "1S"}})
    before = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    text, operation = await token(server)
    assert operation["metadata"]["expiresAt"] > before
    expires = clock.parse(operation["metadata"]["expiresAt"])
    await until(lambda: time.time() > expires)
    assert "expired" in (await client("POST", ALL, {"password": text})).error


async def test_a_token_survives_a_failed_use(server: Any, make_certificate: Any) -> None:
    await server.listen()
    text, _ = await token(server)
    client = await server.https(make_certificate())
    assert (await client("POST", ALL, {"password": text, "certificate": "bm90aGluZw=="})).status == 400
    assert (await client("POST", ALL, {"password": text})).status == 201


async def test_a_restricted_client_sees_and_keeps_its_own_entry(server: Any, make_certificate: Any) -> None:
    await server.listen()
    await server.make_project("blue")
    certificate, other = make_certificate(), make_certificate()
    url = await add(server, certificate, restricted=True, projects=["blue"])
    foreign = await add(server, other)
    client = await server.https(certificate)
    assert (await client("GET", ALL)).metadata == [url]
    assert [entry["fingerprint"] for entry in (await client("GET", f"{ALL}?recursion=1")).metadata] == [certificate.fingerprint]
    assert (await client("GET", foreign)).status == 404
    assert (await client("DELETE", foreign)).status == 404
    changes: tuple[dict[str, Any], ...] = (
        {"restricted": False},
        {"projects": []},
        {"projects": ["blue", "default"]},
        {"name": "x"},
        {"type": "metrics"},
    )
    for change in changes:
        assert (await client("PATCH", url, change)).status == 403, change
        assert (await client("PUT", url, {**(await client("GET", url)).metadata, **change})).status == 403, change
    assert (await client("POST", ALL, {"token": True, "name": "x"})).status == 403
    assert (await client("PATCH", "/1.0", {"config": {"user.a": "1"}})).status == 403
    shown = (await client("GET", "/1.0")).metadata
    assert (shown["auth"], shown["config"]) == ("trusted", {})


async def test_a_client_may_renew_its_certificate(server: Any, make_certificate: Any) -> None:
    await server.listen()
    await server.make_project("blue")
    old, new = make_certificate(), make_certificate()
    url = await add(server, old, restricted=True, projects=["blue"])
    assert (await (await server.https(old))("PATCH", url, {"certificate": new.certificate.read_text()})).status == 200
    assert await auth(server, old) == "untrusted"
    entry = (await (await server.https(new))("GET", f"{ALL}/{new.fingerprint}")).metadata
    assert (entry["name"], entry["restricted"], entry["projects"]) == ("me", True, ["blue"])


async def test_a_metrics_certificate_opens_nothing_else(server: Any, make_certificate: Any) -> None:
    await server.listen()
    certificate = make_certificate()
    await add(server, certificate, type="metrics")
    client = await server.https(certificate)
    assert (await client("GET", "/1.0")).metadata["auth"] == "untrusted"
    assert (await client("GET", ALL)).status == 403


async def test_a_project_that_goes_takes_its_rights_along(server: Any, make_certificate: Any) -> None:
    await server.listen()
    await server.make_project("blue")
    certificate = make_certificate()
    await add(server, certificate, restricted=True, projects=["blue"])
    async with server.global_db.write() as tx:
        await projects.delete(tx, (await projects.find(tx, "blue")).id)
    server.hub.lifecycle("project-deleted", "/1.0/projects/blue")
    async with asyncio.timeout(30):
        while server.certificates._store._entries[certificate.fingerprint].projects:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
    async with server.global_db.read() as tx:
        assert (await rows.find_all(tx))[0].projects == ()


async def test_an_authority_comes_before_the_store(authority: Any, make_server: Any, make_certificate: Any) -> None:
    server = make_server()
    signed, revoked, foreign = make_certificate(signer=authority), make_certificate(signer=authority), make_certificate()
    now = datetime.now(UTC)
    entry = x509.RevokedCertificateBuilder().serial_number(x509.load_der_x509_certificate(revoked.der).serial_number)
    crl = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now)
        .next_update(now + timedelta(days=1))
        .add_revoked_certificate(entry.revocation_date(now).build())
        .sign(authority.key, hashes.SHA384())
    )
    (server.paths.root / "ca.crl").write_bytes(crl.public_bytes(serialization.Encoding.PEM))
    await server.start()
    try:
        await server.listen()
        admin = await server.unix()
        await admin("PATCH", "/1.0", {"config": {"core.trust_password": "sesame"}})
        assert await auth(server, signed) == "untrusted"
        for refused in (revoked, foreign):
            assert (await (await server.https(refused))("POST", ALL, {"password": "sesame"})).status == 403
        await admin("PATCH", "/1.0", {"config": {"core.trust_ca_certificates": "true"}})
        assert [await auth(server, each) for each in (signed, revoked, foreign)] == ["trusted", "untrusted", "untrusted"]
        for each in (signed, revoked, foreign):
            await add(server, each, restricted=True)
        assert [await auth(server, each) for each in (signed, revoked, foreign)] == ["trusted", "untrusted", "untrusted"]
        assert (await (await server.https(signed))("PATCH", "/1.0", {"config": {}})).status == 403, "restricted stays restricted"
    finally:
        await server.stop()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("version", ["1.2", "1.3"])
async def test_curl_gets_in_with_its_certificate(server: Any, make_certificate: Any, version: str) -> None:
    address = await server.listen()
    certificate = make_certificate()
    await add(server, certificate)
    argv = ["curl", "-sk", f"--tlsv{version}", "--tls-max", version, "--noproxy", "*"]
    argv += ["--cert", certificate.certificate, "--key", certificate.key, f"https://{address}/1.0"]
    done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, timeout=60, check=True)
    assert json.loads(done.stdout)["metadata"]["auth"] == "trusted"
