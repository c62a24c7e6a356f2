"""`config device` and `profile device`: the devices of instances and of profiles."""

from __future__ import annotations

import sys

from atoll.cli import entity, yaml_out
from atoll.cli.commands import config, profiles
from atoll.cli.errors import CommandError
from atoll.client.address import url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from atoll.cli.session import Call
    from atoll.client.server import Answer, Server


class Owner:
    """The fetched instance or profile a call is about."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self.of_profile = call.path.startswith("profile ")
        what = "profile name" if self.of_profile else "instance name"
        self.server: Server
        self.server, self.name = call.required(call.arguments[0], what)
        self._kind = profiles.PROFILE if self.of_profile else config.INSTANCE
        self._path = url("profiles" if self.of_profile else "instances", self.name)
        self._answer: Answer = self.server.fetch(self._path)
        self.devices: dict[str, dict[str, str]] = self._answer.metadata.get("devices") or {}

    def device(self, name: str, verb: str) -> dict[str, str]:
        """One own device; `verb` is what cannot be done to one that comes of a profile."""
        if name in self.devices:
            return self.devices[name]
        if not self.of_profile and name in (self._answer.metadata.get("expanded_devices") or {}):
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
        entity.put(self._call, self._kind, self.server, self._path, value, self._answer.etag)


MODIFIED = "modified for individual instance. Override device or modify profile instead"


def add(call: Call) -> None:
    """Add a device."""
    name, kind, *options = call.arguments[1:]
    device = {"type": kind}
    for word in options:
        key, equals, value = word.partition("=")
        if not equals:
            raise CommandError(f'No value found in "{word}"')
        device[key] = value
    owner = Owner(call)
    if name in owner.devices:
        raise CommandError("The device already exists")
    owner.devices[name] = device
    owner.save()
    call.say(f"Device {name} added to {owner.name}")


def remove(call: Call) -> None:
    """Remove devices."""
    owner = Owner(call)
    for name in call.arguments[1:]:
        owner.device(name, "removed from individual instance. Override device or modify profile instead")
        del owner.devices[name]
    owner.save()
    call.say(f"Device {', '.join(call.arguments[1:])} removed from {owner.name}")


def list_(call: Call) -> None:
    """Print the names of the devices."""
    owner = Owner(call)
    sys.stdout.write("\n".join(sorted(owner.devices)) + "\n")


def show(call: Call) -> None:
    """Print the devices."""
    owner = Owner(call)
    sys.stdout.write(yaml_out.dump(entity.ordered({"devices": owner.devices}, ("devices",))["devices"]))


def get(call: Call) -> None:
    """Print one option of a device."""
    owner = Owner(call)
    device = owner.device(call.arguments[1], "retrieved for individual instance")
    sys.stdout.write(device.get(call.arguments[2], "") + "\n")


def set_(call: Call) -> None:
    """Set options of a device."""
    owner = Owner(call)
    owner.device(call.arguments[1], MODIFIED).update(entity.pairs(call.arguments[2:]))
    owner.save()


def unset(call: Call) -> None:
    """Take an option of a device away."""
    owner = Owner(call)
    owner.device(call.arguments[1], MODIFIED).pop(call.arguments[2], None)
    owner.save()


def override(call: Call) -> None:
    """Give an instance its own copy of a profile's device, with changes."""
    owner = Owner(call)
    name = call.arguments[1]
    if name in owner.devices:
        raise CommandError("The device already exists")
    changes = entity.key_values(call.arguments[2:])
    owner.devices[name] = owner.inherited(name) | changes
    owner.save()
    call.say(f"Device {name} overridden for {owner.name}")
