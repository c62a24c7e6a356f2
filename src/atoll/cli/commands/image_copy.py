"""`image copy`: have another server, or another project, take an image.

pull: the target fetches it from the source; push: the source sends it to the target; relay: it goes by this client, which is what
works when neither server reaches the other.
"""

from __future__ import annotations

import contextlib
import tempfile

from atoll.cli.commands import image_aliases, image_remote, image_source, image_store
from atoll.cli.errors import CommandError
from atoll.client.address import quote, url
from atoll.client.errors import ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from atoll.cli.session import Call
    from atoll.client.server import Server

DEFAULT_PROJECT = "default"
MODES = ("pull", "push", "relay")


def copy(call: Call) -> None:
    """Copy an image, and point the aliases at it."""
    image, target = call.arguments
    if not target.endswith(":"):
        raise CommandError(f"{target!r} names no remote: write it as <remote>:")
    server, _ = call.resolve(target)
    aliases = call.flags.every("alias")
    if call.flags.on("copy-aliases"):
        aliases += _aliases(call, image)
    match call.flags.text("mode") or "pull":
        case "pull":
            fingerprint = _pull(call, server, image, target)
        case "push":
            fingerprint = _push(call, server, image, target)
        case "relay":
            fingerprint = _relay(call, server, image)
        case other:
            raise CommandError(f"Invalid mode {other!r}: there are {', '.join(MODES)}")
    where = _into(call, server)
    for alias in dict.fromkeys(aliases):
        image_aliases.assign(where, alias, fingerprint)
    call.say("Image copied successfully!")


def _into(call: Call, server: Server) -> Server:
    """The server, in the project that the image goes to."""
    if project := call.flags.text("target-project"):
        return server.in_project(project)
    return server


def _pull(call: Call, server: Server, image: str, target: str) -> str:
    flags = call.flags
    elsewhere = image_remote.is_elsewhere(call, image, target)
    body: dict[str, Any] = {
        "source": image_remote.source(call, image) if elsewhere else _of_other_project(call, image),
        "auto_update": flags.on("auto-update"),
        "public": flags.on("public"),
        "profiles": flags.every("profile") or None,
    }
    operation = call.change(_into(call, server), "POST", url("images"), body, label="Copying the image").metadata
    fingerprint: str = (operation.get("metadata") or {})["fingerprint"]
    return fingerprint


def _of_other_project(call: Call, image: str) -> dict[str, str]:
    """The `source` of an image that the server has itself."""
    server, name = call.resolve(image)
    project = server.project or DEFAULT_PROJECT
    if call.flags.text("target-project") in ("", project):
        raise CommandError("The source and target servers must be different, or else their projects: see --target-project")
    return {"type": "image", "fingerprint": image_source.required(server, name), "project": project}


def _push(call: Call, server: Server, image: str, target: str) -> str:
    _refuse_update(call)
    if image_remote.is_stream(call, image):
        raise CommandError("An image server pushes nothing: use the mode pull or relay")
    source, name = call.resolve(image)
    about = source.get(url("images", image_source.required(source, name)))
    fingerprint: str = about["fingerprint"]
    into = _into(call, server)
    place = image_remote.reach(call, server, call.config.split(target)[0])
    wished = {
        "source": {"mode": "push", "fingerprint": fingerprint},
        "properties": about.get("properties"),
        "expires_at": about.get("expires_at"),
        "public": call.flags.on("public"),
    }
    answer = into.request("POST", url("images"), wished)
    body = {
        "target": place["server"],
        "certificate": place["certificate"],
        "secret": (answer.metadata.get("metadata") or {})["secret"],
        "project": into.project,
        "profiles": call.flags.every("profile") or about.get("profiles"),
    }
    try:
        call.change(source, "POST", url("images", fingerprint, "export"), body, label="Copying the image")
    except BaseException:
        with contextlib.suppress(ClientError):  # it is used up, or the server is away: what went wrong first is what counts
            into.cancel(answer.operation)
        raise
    return fingerprint


def _relay(call: Call, server: Server, image: str) -> str:
    _refuse_update(call)
    source, name = call.resolve(image)
    about = source.get(url("images", image_source.required(source, name)))
    profiles = call.flags.every("profile") or about.get("profiles") or ()
    headers = {
        "X-LXD-fingerprint": about["fingerprint"],
        "X-LXD-properties": _encoded((about.get("properties") or {}).items()),
        "X-LXD-public": "true" if call.flags.on("public") else "false",
    }
    if profiles:
        headers["X-LXD-profiles"] = _encoded(("profile", name) for name in profiles)
    with tempfile.TemporaryDirectory(prefix="atoll-image-") as folder:
        files = image_store.save(call, source, about["fingerprint"], folder, "image")
        operation = image_store.send(call, _into(call, server), files, headers)
    fingerprint: str = (operation.get("metadata") or {})["fingerprint"]
    return fingerprint


def _refuse_update(call: Call) -> None:
    if call.flags.on("auto-update"):
        raise CommandError("Only an image that the target pulls can be kept up to date")


def _encoded(pairs: Any) -> str:
    return "&".join(f"{quote(key)}={quote(value)}" for key, value in pairs)


def _aliases(call: Call, image: str) -> list[str]:
    server, name = call.resolve(image)
    found = server.get(url("images", image_source.required(server, name)))
    return [alias["name"] for alias in found.get("aliases") or ()]
