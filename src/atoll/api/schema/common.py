"""Bodies that several kinds of objects share."""

from __future__ import annotations

from typing import Any

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
    """PUT of an object that has a description and configuration."""

    description: str | None = None
    config: Config | None = None


def merged(old: dict[str, Any] | Any, new: dict[str, Any] | None) -> dict[str, Any]:
    """For PATCH: the old map with the new one's entries on top."""
    return {**old, **(new or {})}
