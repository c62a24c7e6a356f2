"""Which image a name stands for: one in the server's store, else one the server can build."""

from __future__ import annotations

import sys

from atoll.cli.errors import CommandError
from atoll.client.address import url
from atoll.client.errors import ServerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from atoll.cli.session import Call
    from atoll.client.server import Server

NOT_FOUND = 404
BUILDABLE = ("debian", "ubuntu", "busybox")


def find_unnamed(call: Call, server: Server, text: str) -> dict[str, Any]:
    """The `source` of an instance for the image named on the command line, where that is no alias: found by its fingerprint, else
    at its image server, else built when its name says how."""
    remote, name = call.config.split(text)
    fingerprint = _by_fingerprint(server, name)
    if fingerprint is not None:
        return {"type": "image", "fingerprint": fingerprint}
    if call.config.remotes[remote].get("protocol") == "simplestreams":
        from atoll.cli.commands import image_remote

        return image_remote.source(call, text)
    if not can_build(name):
        raise _missing(server)
    return built(call, server, name)


def built(call: Call, server: Server, name: str) -> dict[str, Any]:
    """The `source` of an instance for an image that is built now, to be had by that name from then on."""
    sys.stderr.write(f'No image "{name}" in the store and no image server gives it: building it here\n')
    return {"type": "image", "fingerprint": build(call, server, name, aliases=[name])}


def resolve(server: Server, name: str) -> str | None:
    """The fingerprint of an alias, or of the start of a fingerprint; None when the store has neither."""
    return alias_target(server, name) or _by_fingerprint(server, name)


def alias_target(server: Server, name: str) -> str | None:
    """The fingerprint of an alias."""
    try:
        target: str = server.get(url("images", "aliases", name))["target"]
    except ServerError as error:
        if error.status != NOT_FOUND:
            raise
        return None
    return target


def _by_fingerprint(server: Server, name: str) -> str | None:
    if not is_hex(name):
        return None
    try:
        fingerprint: str = server.get(url("images", name))["fingerprint"]
    except ServerError as error:
        if error.status != NOT_FOUND:
            raise
        return None
    return fingerprint


def is_hex(name: str) -> bool:
    """Whether the name could be (the start of) a fingerprint."""
    return bool(name) and not name.strip("0123456789abcdef")


def required(server: Server, name: str) -> str:
    """`resolve`, where the image has to exist."""
    fingerprint = resolve(server, name)
    if fingerprint is None:
        raise _missing(server)
    return fingerprint


def _missing(server: Server) -> CommandError:
    """The image is not there, unless it is the whole project."""
    try:
        if server.project:
            server.get(url("projects", server.project))
    except ServerError as error:
        if error.status != NOT_FOUND:
            raise
        return CommandError(f'The project "{server.project}" doesn\'t exist')
    return CommandError("Image not found")


def can_build(name: str) -> bool:
    """Whether the name is like debian/12 or busybox."""
    distribution, slash, release = name.partition("/")
    return distribution in BUILDABLE and (bool(slash and release) or distribution == "busybox")


def build(
    call: Call,
    server: Server,
    spec: str,
    *,
    aliases: Iterable[str] = (),
    packages: Iterable[str] = (),
    public: bool = False,
) -> str:
    """Have the server build DISTRIBUTION[/RELEASE[/VARIANT]]; returns the fingerprint."""
    distribution, release, variant = [*spec.split("/", 2), "", ""][:3]
    source = {"type": "build", "distribution": distribution, "packages": list(packages)}
    source |= {key: value for key, value in (("release", release), ("variant", variant)) if value}
    body = {"source": source, "aliases": [{"name": name} for name in aliases], "public": public}
    operation = call.change(server, "POST", url("images"), body, label="Building image").metadata
    fingerprint: str = (operation.get("metadata") or {})["fingerprint"]
    return fingerprint
