"""Certificates: forms, dates, making one."""

from __future__ import annotations

import base64
import ssl
import stat
from pathlib import Path

import pytest

from atoll.domain.errors import BadRequest, HostError, Unsupported
from atoll.host import passwords, tls, x509
from atoll.host.x509 import ServerFiles, Validity

PEM, KEY = x509.make_self_signed("host.example")


def files(folder: Path) -> ServerFiles:
    return ServerFiles(folder / "server.crt", folder / "server.key")


def test_forms_of_one_certificate_are_one() -> None:
    der = x509.to_der(PEM.decode())
    encoded = base64.b64encode(der).decode()
    assert x509.to_der(encoded) == der
    assert x509.to_der("\n".join(encoded[i : i + 60] for i in range(0, len(encoded), 60))) == der
    assert x509.to_der("words before\n" + PEM.decode() + "\nwords after") == der
    assert x509.to_der(x509.to_pem(der)) == der
    assert x509.check(der) == "root@host.example"
    assert len(x509.fingerprint(der)) == 64


@pytest.mark.parametrize("text", ["", " ", "%", "é", "-----BEGIN CERTIFICATE-----", PEM.decode()[:-40], "A" * 65537])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        x509.to_der(text)


@pytest.mark.parametrize("der", [b"", b"\x30", b"\x30\x80" * 4000, b"nothing"])
def test_other_bytes_are_refused(der: bytes) -> None:
    with pytest.raises(BadRequest):
        x509.check(der)


def test_dates_hold_to_the_second_and_none_never() -> None:
    validity = x509.validity_of_peer({"notBefore": "Jan  1 00:00:00 2020 GMT", "notAfter": "Jan  1 00:00:10 2020 GMT"})
    assert [validity.holds(1577836800 + n) for n in (-1, 0, 10, 11)] == [False, True, True, False]
    for odd in (None, {}, {"notBefore": "now", "notAfter": "then"}):
        assert not x509.validity_of_peer(odd).holds(0)
    assert Validity(0, 1).holds(0.5)


def test_the_pair_is_made_when_it_is_not_whole(tmp_path: Path) -> None:
    pair = files(tmp_path)
    x509.ensure_server_files(pair)
    first = pair.certificate.read_bytes()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (pair.certificate, pair.key)] == [0o600, 0o600]
    x509.ensure_server_files(pair)
    assert pair.certificate.read_bytes() == first
    pair.certificate.unlink()
    (tmp_path / "server.crt.new").write_text("left by a kill")
    x509.ensure_server_files(pair)
    assert pair.certificate.read_bytes() != first
    tls.server_context(pair)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["server.crt", "server.key"]


def test_the_context_asks_and_the_pointer_is_checked(tmp_path: Path) -> None:
    x509.ensure_server_files(files(tmp_path))
    context = tls.server_context(files(tmp_path))
    assert context.verify_mode is ssl.CERT_OPTIONAL
    library = tls._OpenSsl()
    assert library._is_the_one(context, library.pointer(context))
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    assert not library._is_the_one(context, library.pointer(other))


async def test_a_python_without_its_own_openssl_still_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import _ssl

    monkeypatch.delattr(_ssl, "__file__")
    server = tls.ServerTls(files(tmp_path))
    await server.open()
    assert server.fingerprint
    with pytest.raises(Unsupported, match="client certificates"):
        _ = server.context


async def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    pair = files(tmp_path)
    pair.certificate.write_text("rubbish")
    pair.key.write_text("rubbish")
    with pytest.raises(HostError, match=r"server\.crt"):
        await tls.ServerTls(pair).open()


def test_passwords() -> None:
    stored = passwords.make_hash("sesame")
    assert len(stored) == 192
    assert passwords.make_hash("sesame") != stored
    assert passwords.verify(stored, "sesame")
    assert not any(passwords.verify(odd, "sesame") for odd in ("", "zz", stored[:-2], "00" * 96))
    assert not passwords.verify(stored, "Sesame")
