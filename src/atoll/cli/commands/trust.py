"""`config trust`: the clients a server trusts."""

from __future__ import annotations

import sys

from atoll.cli import entity, times
from atoll.cli.errors import CommandError
from atoll.client.address import url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from atoll.cli.session import Call
    from atoll.client.server import Server

_FIELDS = ("name", "type", "restricted", "projects", "certificate")
CERTIFICATE = entity.Entity(show=(*_FIELDS, "fingerprint"), put=_FIELDS)
HELP = """### This is a YAML representation of the certificate.
### Any line starting with a '# will be ignored.
###
### Note that the fingerprint is shown but cannot be changed
"""


def list_(call: Call) -> None:
    """List trusted clients."""
    server, _ = call.split_remote(call.arguments)
    found = server.get(url("certificates", recursion="1")) or []
    rows = [_row(row) for row in found]
    header = ("TYPE", "NAME", "COMMON NAME", "FINGERPRINT", "ISSUE DATE", "EXPIRY DATE")
    entity.print_list(call, header, rows, found)


def _row(row: dict[str, Any]) -> list[str]:
    details = _details(row["certificate"])
    dates = [details.get(key, "") for key in ("notBefore", "notAfter")]
    return [row["type"], row.get("name") or "", _common_name(details), row["fingerprint"][:12], *map(_date, dates)]


def _details(pem: str) -> dict[str, Any]:
    """What the standard library tells of a certificate. It reads none from memory, and only in private."""
    import _ssl
    import tempfile

    with tempfile.NamedTemporaryFile("w", suffix=".crt") as file:
        file.write(pem)
        file.flush()
        found: dict[str, Any] = _ssl._test_decode_cert(file.name)  # type: ignore[attr-defined]
        return found


def _common_name(details: dict[str, Any]) -> str:
    names = [value for part in details.get("subject", ()) for key, value in part if key == "commonName"]
    return names[0] if names else ""


def _date(text: str) -> str:
    import ssl
    from time import gmtime, strftime

    stamp = strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(ssl.cert_time_to_seconds(text))) if text else ""
    return times.long(stamp) if stamp else ""


def show(call: Call) -> None:
    """Print a trusted client."""
    server, name = call.required(call.arguments[0], "certificate fingerprint")
    entity.show(CERTIFICATE, server, url("certificates", name))


def edit(call: Call) -> None:
    """Change a trusted client."""
    server, name = call.required(call.arguments[0], "certificate fingerprint")
    entity.edit(call, CERTIFICATE, server, url("certificates", name), HELP)


def remove(call: Call) -> None:
    """Trust a client no longer."""
    server, name = call.required(call.arguments[0], "certificate fingerprint")
    server.request("DELETE", url("certificates", name))


def add(call: Call) -> None:
    """Trust a certificate, or print a token by which a client can have its own trusted."""
    words = list(call.arguments)
    remote = words.pop(0) if words and words[0].endswith(":") else ""
    server, _ = call.resolve(remote)
    flags = call.flags
    body: dict[str, Any] = {
        "name": flags.text("name"),
        "type": flags.text("type"),
        "restricted": flags.on("restricted"),
        "projects": [word for word in flags.text("projects").split(",") if word],
    }
    if words:
        server.request("POST", url("certificates"), body | _certificate(words[0], body["name"]))
        return
    body["name"] = body["name"] or _ask_name()
    operation = server.request("POST", url("certificates"), body | {"token": True}).metadata
    call.say(f"Client {body['name']} certificate add token:")
    sys.stdout.write(f"{token(operation)}\n")


def _ask_name() -> str:
    from atoll.cli import terminal

    return terminal.ask("Please provide client name: ")


def _certificate(path: str, name: str) -> dict[str, str]:
    """The certificate of a PEM file, as the API takes it: the DER in base64."""
    import os

    try:
        with open(path, encoding="ascii") as file:
            text = file.read()
    except OSError as error:
        raise CommandError(f"open {path}: {(error.strerror or '').lower()}") from error
    _, begin, rest = text.partition("-----BEGIN CERTIFICATE-----")
    if not begin:
        raise CommandError("Invalid certificate")
    body = "".join(rest.partition("-----END CERTIFICATE-----")[0].split())
    return {"certificate": body, "name": name or os.path.basename(path)}


def token(operation: dict[str, Any]) -> str:
    """The join token of a token operation: JSON in base64."""
    import binascii

    from atoll.client import codec

    found = operation.get("metadata") or {}
    fields = {
        "client_name": (found.get("request") or {}).get("name", ""),
        "fingerprint": found.get("fingerprint", ""),
        "addresses": found.get("addresses") or [],
        "secret": found.get("secret", ""),
        "expires_at": found.get("expiresAt") or "0001-01-01T00:00:00Z",
    }
    return binascii.b2a_base64(codec.dumps(fields).encode(), newline=False).decode()


def _tokens(server: Server) -> list[dict[str, Any]]:
    """The running token operations."""
    found: dict[str, list[dict[str, Any]]] = server.get(url("operations", recursion="1")) or {}
    running = found.get("running") or []
    return [row for row in running if row["class"] == "token" and "secret" in (row.get("metadata") or {})
            and "request" in row["metadata"]]  # fmt: skip


def list_tokens(call: Call) -> None:
    """List tokens that nobody has used yet."""
    server, _ = call.split_remote(call.arguments)
    found = _tokens(server)
    rows = [
        [row["metadata"]["request"].get("name", ""), token(row), times.minute(row["metadata"].get("expiresAt") or "")]
        for row in found
    ]
    entity.print_list(call, ("NAME", "TOKEN", "EXPIRES AT"), rows, found)


def revoke_token(call: Call) -> None:
    """Make a token worthless."""
    words = list(call.arguments)
    remote, name = call.config.split(words[0] if len(words) == 1 else words[0] + words[1])
    server = call.server(remote)
    for row in _tokens(server):
        if row["metadata"]["request"].get("name") == name:
            server.request("DELETE", url("operations", row["id"]))
            call.say(f"Certificate add token for {name} deleted")
            return
    raise CommandError(f"No certificate add token for member {name} on remote: {remote}")
