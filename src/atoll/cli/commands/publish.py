"""`publish`: an instance or a snapshot as an image."""

from __future__ import annotations

from atoll.cli import entity, times
from atoll.cli.commands import image_aliases, image_source
from atoll.cli.errors import CommandError
from atoll.client.address import url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from atoll.cli.session import Call
    from atoll.client.server import Server


def run(call: Call) -> None:
    """Publish, and let the aliases mean the new image, whatever they meant before."""
    flags = call.flags
    server, name = call.required(call.arguments[0], "instance name")
    body = _request(name, _properties(call), call)
    aliases = flags.every("alias")
    former = {alias: image_source.alias_target(server, alias) for alias in aliases} if flags.on("reuse") else {}
    if "/" in name:
        fingerprint = _publish(call, server, body)
    else:
        with _Stopped(call, server, name):
            fingerprint = _publish(call, server, body)
    for alias in aliases:
        image_aliases.assign(server, alias, fingerprint)
    for target in {target for target in former.values() if target not in (None, fingerprint)}:
        _delete_nameless(call, server, url("images", str(target)))
    call.say(f"Instance published with fingerprint: {fingerprint}")


def _properties(call: Call) -> dict[str, str] | None:
    """The KEY=VALUE words; None leaves the image the properties of the one the instance was made of."""
    words = call.arguments[1:]
    if words and words[0].endswith(":") and "=" not in words[0]:
        if call.config.split(words[0])[0] != call.config.split(call.arguments[0])[0]:
            raise CommandError("Instances cannot be published to other servers yet")
        words = words[1:]
    return entity.key_values(words) or None


def _request(name: str, properties: dict[str, str] | None, call: Call) -> dict[str, Any]:
    flags = call.flags
    expiry = flags.text("expire")
    if expiry and times.seconds(expiry) is None:
        raise CommandError(f"Invalid expiration date: {expiry}")
    return {
        "source": {"type": "snapshot" if "/" in name else "instance", "name": name},
        "properties": properties,
        "public": flags.on("public"),
        "expires_at": expiry or None,
        "compression_algorithm": flags.text("compression"),
    }


def _publish(call: Call, server: Server, body: dict[str, Any]) -> str:
    operation = call.change(server, "POST", url("images"), body, label="Publishing instance").metadata
    fingerprint: str = operation["metadata"]["fingerprint"]
    return fingerprint


def _delete_nameless(call: Call, server: Server, path: str) -> None:
    """Delete an image that has lost its last alias."""
    if not server.get(path).get("aliases"):
        call.change(server, "DELETE", path)


class _Stopped:
    """An instance kept stopped for a while, with --force; started again after that. An ephemeral one survives it."""

    def __init__(self, call: Call, server: Server, name: str) -> None:
        self._call = call
        self._server = server
        self._path = url("instances", name)
        found = server.get(self._path)
        self._running = found["status"] not in ("Stopped", "Error")
        self._ephemeral = bool(found.get("ephemeral"))
        if self._running and not call.flags.on("force"):
            raise CommandError("The instance is currently running. Use --force to have it stopped and restarted")

    def __enter__(self) -> None:
        if self._running:
            self._set_ephemeral(on=False)
            self._set_state("stop")

    def __exit__(self, *_: object) -> None:
        if self._running:
            self._set_state("start")
            self._set_ephemeral(on=True)

    def _set_ephemeral(self, *, on: bool) -> None:
        if self._ephemeral:
            self._call.change(self._server, "PATCH", self._path, {"ephemeral": on})

    def _set_state(self, action: str) -> None:
        self._call.change(self._server, "PUT", f"{self._path}/state", {"action": action, "timeout": -1, "force": True})
