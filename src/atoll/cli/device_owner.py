"""The owners of devices: instances and profiles."""

from __future__ import annotations

from atoll.cli import entity
from atoll.cli.commands import config, profiles
from atoll.cli.errors import CommandError
from atoll.client.address import url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from atoll.cli.session import Call
    from atoll.client.server import Answer, Server


class Owner:
    """An instance or a profile, as it was fetched, with `devices` to be changed."""

    def __init__(self, call: Call, server: Server, name: str, *, is_profile: bool) -> None:
        self.name = name
        self._call = call
        self._server = server
        self._is_profile = is_profile
        self._kind = profiles.PROFILE if is_profile else config.INSTANCE
        self._path = url("profiles" if is_profile else "instances", name)
        self._answer: Answer = server.fetch(self._path)
        self.devices: dict[str, dict[str, str]] = self._answer.metadata.get("devices") or {}

    def device(self, name: str, verb: str) -> dict[str, str]:
        """One own device; `verb` is what cannot be done to one that comes of a profile."""
        if name in self.devices:
            return self.devices[name]
        if not self._is_profile and name in (self._answer.metadata.get("expanded_devices") or {}):
            raise CommandError(f"Device from profile(s) cannot be {verb}")
        raise CommandError("Device doesn't exist")

    def inherited(self, name: str) -> dict[str, str]:
        """A device that comes of a profile."""
        expanded: dict[str, Any] = self._answer.metadata.get("expanded_devices") or {}
        if name not in expanded:
            raise CommandError("The profile device doesn't exist")
        return dict(expanded[name])

    def save(self) -> None:
        """Put the changed devices back."""
        value = self._answer.metadata | {"devices": self.devices}
        entity.put(self._call, self._kind, self._server, self._path, value, self._answer.etag)
