"""`remote add`: getting to know a server, and being let in."""

from __future__ import annotations

import base64
import binascii
import sys

from atoll.cli import terminal
from atoll.cli.config import is_remote_name
from atoll.cli.errors import CommandError
from atoll.client import codec, tls
from atoll.client.address import url
from atoll.client.errors import ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from atoll.cli.session import Call
    from atoll.client.server import Server

PROTOCOLS = ("lxd", "simplestreams")
AUTH_TYPE = "tls"


class Token:
    """What a token says of the server that gave it. `text` is what the server wants to see again."""

    def __init__(self, text: str, raw: dict[str, Any]) -> None:
        self.text = text
        self.name: str = raw.get("client_name") or ""
        self.fingerprint: str = raw.get("fingerprint") or ""
        self.addresses: list[str] = [str(each) for each in raw.get("addresses") or ()]


def read_token(text: str) -> Token | None:
    """The token in a text; None if it is none."""
    try:
        raw = codec.loads(base64.b64decode(text, validate=True).decode())
    except (binascii.Error, ValueError):
        return None
    return Token(text, raw) if isinstance(raw, dict) and raw.get("secret") and raw.get("addresses") else None


def run(call: Call) -> None:
    """Add a remote."""
    words = call.arguments
    token = read_token(words[-1])
    name = words[0].removesuffix(":") if len(words) > 1 else (token.name if token else words[0])
    _check_name(call, name)
    protocol = call.flags.text("protocol") or PROTOCOLS[0]
    if protocol not in PROTOCOLS:
        raise CommandError(f"Invalid protocol: {protocol}")
    if call.flags.text("auth-type") not in ("", AUTH_TYPE):
        raise CommandError(f"Atoll's client logs in by certificate only: --auth-type={AUTH_TYPE}")
    if token is not None:
        _add_by_token(call, name, token)
        return
    if protocol == "simplestreams":
        address = f"https://{words[-1].removeprefix('https://')}"
        tls.split(address)
        _save(call, name, {"addr": address, "protocol": protocol, "public": True})
        return
    address = normal(words[-1])
    if address.startswith("unix:"):
        _save(call, name, {"addr": address, "public": False})
    else:
        _add_server(call, name, address)


def _check_name(call: Call, name: str) -> None:
    known = call.config.remotes.get(name)
    if known is not None:
        raise CommandError(f"Remote {name} exists as <{known.get('addr')}>")
    if ":" in name:
        raise CommandError("Remote names may not contain colons")
    if not is_remote_name(name):
        raise CommandError(f"{name!r} cannot be the name of a remote: use letters, digits, '.', '_' and '-'")


def normal(text: str) -> str:
    """The address a word stands for: a URL, a host with or without a port, or the path of a unix socket."""
    if text.startswith("unix:") or text.startswith("/"):
        return "unix://" + text.removeprefix("unix:").removeprefix("//")
    if "://" in text and not text.startswith("https://"):
        raise CommandError(f'Invalid URL scheme "{text.partition("://")[0]}" in "{text}": remote servers are reached by https')
    bare = text.removeprefix("https://").rstrip("/")
    if bare.count(":") > 1 and not bare.startswith("["):
        bare = f"[{bare}]"  # an IPv6 address alone
    if "/" not in bare and ":" not in bare.rpartition("]")[2]:
        bare += f":{tls.PORT}"
    address = f"https://{bare}"
    tls.split(address)
    return address


def _add_by_token(call: Call, name: str, token: Token) -> None:
    """The first of its addresses where the very server that gave it answers."""
    identity = call.config.identity()
    identity.make()
    problems = []
    for each in token.addresses:
        address = f"https://{each}"
        try:
            der, _ = tls.certificate_of(address, identity)
        except ClientError as error:
            problems.append(str(error))
            continue
        if tls.fingerprint(der) != token.fingerprint:
            problems.append(f"{each} has another certificate than the token says")
            continue
        _enter(call, name, {"addr": address, "auth_type": AUTH_TYPE, "protocol": "lxd", "public": False}, der, token.text)
        return
    raise CommandError("The server of this token cannot be reached:\n  " + "\n  ".join(problems))


def _add_server(call: Call, name: str, address: str) -> None:
    identity = call.config.identity()
    public = call.flags.on("public")
    if not public:
        identity.make()
    der, vouched = tls.certificate_of(address, identity)
    if not vouched and not call.flags.on("accept-certificate"):
        _ask_about(tls.fingerprint(der))
    row = {"addr": address, "auth_type": AUTH_TYPE, "protocol": "lxd", "public": public}
    _enter(call, name, row, None if vouched else der, call.flags.text("password"))


def _ask_about(fingerprint: str) -> None:
    """Let a person compare fingerprints. CommandError unless it is the right one."""
    sys.stdout.write(f"Certificate fingerprint: {fingerprint}\n")
    answer = terminal.ask("ok (y/n/[fingerprint])? ").lower()
    if answer not in ("y", "yes", fingerprint):
        raise CommandError("Server certificate NACKed by user")


def _enter(call: Call, name: str, row: dict[str, Any], der: bytes | None, secret: str) -> None:
    """Be let in, then remember the remote; what was remembered on the way is forgotten when that fails."""
    config = call.config
    config.remotes[name] = row
    if der is not None:
        tls.write_known(config.known_path(name), der)
    try:
        server = call.server(name)
        if not row["public"]:
            about = server.get("/1.0")
            if about.get("auth") != "trusted" and about.get("public"):
                row["public"] = True
            elif about.get("auth") != "trusted":
                _introduce(server, name, secret)
            if not row["public"]:
                _choose_project(call, server, row)
    except BaseException:
        config.forget_known(name)
        raise
    config.save()


def _introduce(server: Server, name: str, secret: str) -> None:
    """Have this client's certificate taken into the server's trust store."""
    if not secret:
        import getpass

        secret = getpass.getpass(f"Admin password (or token) for {name}: ")
    server.request("POST", url("certificates"), {"type": "client", "password": secret})
    if server.get("/1.0").get("auth") != "trusted":
        raise CommandError("Server doesn't trust us after authentication")
    sys.stdout.write(f"Client certificate now trusted by server: {name}\n")


def _choose_project(call: Call, server: Server, row: dict[str, Any]) -> None:
    """The one asked for; else the default one, or, for a client that may not use that, one it may."""
    wished = call.flags.text("project")
    projects = sorted(path.rpartition("/")[2] for path in server.get(url("projects")) or ())
    if wished and wished not in projects:
        raise CommandError(f"Project {wished} doesn't exist")
    if not wished and (not projects or "default" in projects):
        return
    if not wished and len(projects) > 1:
        sys.stdout.write("Available projects:\n" + "".join(f" - {each}\n" for each in projects))
        wished = terminal.ask("Name of the project to use for this remote: ")
        if wished not in projects:
            raise CommandError(f"Project {wished} doesn't exist")
    row["project"] = wished or projects[0]


def _save(call: Call, name: str, row: dict[str, Any]) -> None:
    call.config.remotes[name] = row
    call.config.save()
