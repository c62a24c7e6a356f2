"""Images of other servers than the one that is to have them: what to tell it, so that it fetches them itself."""

from __future__ import annotations

from atoll.cli.commands import image_aliases, image_source
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
    about |= _address(server, row)
    if found.get("public") and name != fingerprint and not fingerprint.startswith(name):
        return about | {"alias": name}
    if not found.get("public"):
        operation = server.request("POST", url("images", fingerprint, "secret")).metadata
        about["secret"] = (operation.get("metadata") or {})["secret"]
    return about | {"fingerprint": fingerprint}


def _address(server: Server, row: dict[str, Any]) -> dict[str, str]:
    """Where another server reaches this one, and the certificate it will show."""
    about = server.get("/1.0")
    address = str(row.get("addr") or "")
    if not address.startswith("https://"):
        addresses = (about.get("environment") or {}).get("addresses") or []
        if not addresses:
            raise CommandError("The source server isn't listening on the network: set its core.https_address")
        address = f"https://{addresses[0]}"
    return {"server": address, "certificate": (about.get("environment") or {}).get("certificate") or ""}


def copy(call: Call) -> None:
    """Have another server, or another project, take an image."""
    flags = call.flags
    image, target = call.arguments
    if not target.endswith(":"):
        raise CommandError(f"{target!r} names no remote: write it as <remote>:")
    if flags.text("mode") not in ("", "pull"):
        raise CommandError("Only the mode pull is supported: the target server fetches the image")
    server, _ = call.resolve(target)
    wished = flags.text("target-project")
    body: dict[str, Any] = {
        "source": source(call, image),
        "auto_update": flags.on("auto-update"),
        "public": flags.on("public"),
        "profiles": flags.every("profile") or None,
    }
    aliases = [{"name": name} for name in flags.every("alias")]
    if flags.on("copy-aliases"):
        aliases += _aliases(call, image)
    operation = call.change(server, "POST", url("images", project=wished), body, label="Copying the image").metadata
    fingerprint = (operation.get("metadata") or {})["fingerprint"]
    for alias in aliases:
        image_aliases.assign(server, alias["name"], fingerprint)
    call.say("Image copied successfully!")


def _aliases(call: Call, image: str) -> list[dict[str, str]]:
    if is_stream(call, image):
        raise CommandError("The aliases of an image server's images cannot be copied")
    server, name = call.resolve(image)
    found = server.get(url("images", image_source.required(server, name)))
    return [{"name": alias["name"]} for alias in found.get("aliases") or ()]
