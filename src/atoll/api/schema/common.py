"""Bodies that several kinds of objects share."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

Config = dict[str, str]
Devices = dict[str, dict[str, str]]


class Body(msgspec.Struct, kw_only=True):
    """Base of bodies: unknown fields are ignored, as LXD ignores them (a newer client may send more)."""


class PushTarget(Body):
    """The operation of another server that something is pushed to."""

    certificate: str = ""
    operation: str = ""
    secrets: dict[str, str] | None = None


class Rename(Body):
    """POST of an object: its new name."""

    name: str = ""


class DescriptionConfig(Body):
    """PUT and PATCH of an object that has a description and configuration."""

    description: str | None = None
    config: Config | None = None

    def replacing(self) -> tuple[str, Config]:
        """The description and configuration after a PUT."""
        return self.description or "", self.config or {}

    def changing(self, description: str, config: Mapping[str, str]) -> tuple[str, Config]:
        """Those after a PATCH of an object that has these: what is not given stays."""
        return description if self.description is None else self.description, {**config, **(self.config or {})}
