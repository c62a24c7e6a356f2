"""`config device` and `profile device`: the devices of instances and of profiles."""

from __future__ import annotations

import sys

from atoll.cli import entity, yaml_out
from atoll.cli.device_owner import Owner
from atoll.cli.errors import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from atoll.cli.session import Call

MODIFIED = "modified for individual instance. Override device or modify profile instead"


def _owner(call: Call) -> Owner:
    """The one that the first argument names."""
    is_profile = call.path.startswith("profile ")
    server, name = call.required(call.arguments[0], "profile name" if is_profile else "instance name")
    return Owner(call, server, name, is_profile=is_profile)


def add(call: Call) -> None:
    """Add a device."""
    name, kind, *options = call.arguments[1:]
    device = {"type": kind}
    for word in options:
        key, equals, value = word.partition("=")
        if not equals:
            raise CommandError(f'No value found in "{word}"')
        device[key] = value
    owner = _owner(call)
    if name in owner.devices:
        raise CommandError("The device already exists")
    owner.devices[name] = device
    owner.save()
    call.say(f"Device {name} added to {owner.name}")


def remove(call: Call) -> None:
    """Remove devices."""
    owner = _owner(call)
    for name in call.arguments[1:]:
        owner.device(name, "removed from individual instance. Override device or modify profile instead")
        del owner.devices[name]
    owner.save()
    call.say(f"Device {', '.join(call.arguments[1:])} removed from {owner.name}")


def list_(call: Call) -> None:
    """Print the names of the devices."""
    owner = _owner(call)
    sys.stdout.write("\n".join(sorted(owner.devices)) + "\n")


def show(call: Call) -> None:
    """Print the devices."""
    owner = _owner(call)
    sys.stdout.write(yaml_out.dump(entity.ordered({"devices": owner.devices}, ("devices",))["devices"]))


def get(call: Call) -> None:
    """Print one option of a device."""
    owner = _owner(call)
    device = owner.device(call.arguments[1], "retrieved for individual instance")
    sys.stdout.write(device.get(call.arguments[2], "") + "\n")


def set_(call: Call) -> None:
    """Set options of a device."""
    owner = _owner(call)
    owner.device(call.arguments[1], MODIFIED).update(entity.pairs(call.arguments[2:]))
    owner.save()


def unset(call: Call) -> None:
    """Take an option of a device away."""
    owner = _owner(call)
    owner.device(call.arguments[1], MODIFIED).pop(call.arguments[2], None)
    owner.save()


def override(call: Call) -> None:
    """Give an instance its own copy of a profile's device, with changes."""
    owner = _owner(call)
    name = call.arguments[1]
    if name in owner.devices:
        raise CommandError(f"The device already exists (change it with `atoll config device set {owner.name} {name} …`)")
    changes = entity.key_values(call.arguments[2:])
    owner.devices[name] = owner.inherited(name) | changes
    owner.save()
    call.say(f"Device {name} overridden for {owner.name}")
