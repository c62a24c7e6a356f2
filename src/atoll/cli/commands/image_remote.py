"""Images of other servers than the one that is to have them: what to tell it, so that it fetches them itself."""

from __future__ import annotations

from atoll.cli.commands import image_source
from atoll.cli.errors import CommandError
from atoll.client.address import url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from atoll.cli.session import Call
    from atoll.client.server import Server


def is_elsewhere(call: Call, image: str, target: str) -> bool:
    """Whether the remote of an image is another than that of who is to have it."""
    return call.config.split(image)[0] != call.config.split(target)[0]


def is_stream(call: Call, image: str) -> bool:
    """Whether the remote of an image is an image server, which no request can be sent to."""
    return call.config.remotes[call.config.split(image)[0]].get("protocol") == "simplestreams"


def source(call: Call, image: str) -> dict[str, Any]:
    """The `source` that makes a server fetch the image from where it is. A secret opens a private one, for one download."""
    remote, name = call.config.split(image)
    row = call.config.remotes[remote]
    if row.get("protocol") == "simplestreams":
        address = str(row.get("addr")).rstrip("/")
        key = "fingerprint" if image_source.is_hex(name) and len(name) >= 12 else "alias"
        return {"type": "image", "mode": "pull", "server": address, "protocol": "simplestreams", key: name or "default"}
    server = call.server(remote)
    fingerprint = image_source.required(server, name)
    found = server.get(url("images", fingerprint))
    about: dict[str, Any] = {"type": "image", "mode": "pull", "protocol": "lxd", "project": server.project}
    about |= reach(call, server, remote)
    if found.get("public") and name != fingerprint and not fingerprint.startswith(name):
        return about | {"alias": name}
    if not found.get("public"):
        operation = server.request("POST", url("images", fingerprint, "secret")).metadata
        about["secret"] = (operation.get("metadata") or {})["secret"]
    return about | {"fingerprint": fingerprint}


def reach(call: Call, server: Server, remote: str) -> dict[str, str]:
    """Where another server reaches this one, and the certificate it will show: its own word, else what this client knows."""
    environment = server.get("/1.0").get("environment") or {}
    place = str(call.config.remotes[remote].get("addr") or "")
    if not place.startswith("https://"):
        addresses = environment.get("addresses") or []
        if not addresses:
            raise CommandError("The source server isn't listening on the network: set its core.https_address")
        place = f"https://{addresses[0]}"
    return {"server": place, "certificate": environment.get("certificate") or _known(call, remote)}


def _known(call: Call, remote: str) -> str:
    """The certificate of a public server, which tells strangers little, in PEM; empty if an authority vouches for it."""
    try:
        with open(call.config.known_path(remote), encoding="ascii") as file:
            return file.read()
    except FileNotFoundError:
        return ""
