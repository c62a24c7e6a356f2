"""`profile`: profiles, and which instances use them."""

from __future__ import annotations

from atoll.cli import entity
from atoll.cli.errors import CommandError
from atoll.client.address import url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from atoll.cli.session import Call
    from atoll.client.server import Server

PROFILE = entity.Entity(show=("config", "description", "devices", "name", "used_by"), put=("config", "description", "devices"))
HELP = """### This is a YAML representation of the profile.
### Any line starting with a '# will be ignored.
###
### Note that the name is shown but cannot be changed
"""


def _one(call: Call, index: int = 0) -> tuple[Server, str, str]:
    server, name = call.required(call.arguments[index], "profile name")
    return server, name, url("profiles", name)


def list_(call: Call) -> None:
    """List profiles."""
    server, _ = call.split_remote(call.arguments)
    found = server.get(url("profiles", recursion="1")) or []
    rows = [[row["name"], row.get("description") or "", str(len(row.get("used_by") or ()))] for row in found]
    entity.print_list(call, ("NAME", "DESCRIPTION", "USED BY"), rows, found, PROFILE)


def show(call: Call) -> None:
    """Print a profile."""
    server, _, path = _one(call)
    entity.show(PROFILE, server, path)


def create(call: Call) -> None:
    """Create a profile."""
    server, name, _ = _one(call)
    server.request("POST", url("profiles"), {"name": name, "config": {}, "devices": {}, "description": ""})
    call.say(f"Profile {name} created")


def delete(call: Call) -> None:
    """Delete a profile."""
    server, name, path = _one(call)
    server.request("DELETE", path)
    call.say(f"Profile {name} deleted")


def edit(call: Call) -> None:
    """Change a profile."""
    server, _, path = _one(call)
    entity.edit(call, PROFILE, server, path, HELP)


def get(call: Call) -> None:
    """Print one value."""
    server, _, path = _one(call)
    entity.get_key(server, path, call.arguments[1])


def set_(call: Call) -> None:
    """Set values."""
    server, _, path = _one(call)
    entity.set_keys(call, PROFILE, server, path, entity.pairs(call.arguments[1:]))


def unset(call: Call) -> None:
    """Take a value away."""
    server, _, path = _one(call)
    entity.unset_key(call, PROFILE, server, path, call.arguments[1])


def rename(call: Call) -> None:
    """Rename a profile."""
    server, name, path = _one(call)
    server.request("POST", path, {"name": call.arguments[1]})
    call.say(f"Profile {name} renamed to {call.arguments[1]}")


def copy(call: Call) -> None:
    """Copy a profile, perhaps to another remote or project."""
    server, name, path = _one(call)
    target, new = call.resolve(call.arguments[1])
    source = server.get(path)
    body = {key: source.get(key) for key in PROFILE.put} | {"name": new or name}
    target.request("POST", url("profiles", project=call.flags.text("target-project")), body)


def _instance(call: Call) -> tuple[Server, str, str]:
    server, name = call.required(call.arguments[0], "instance name")
    return server, name, url("instances", name)


def _replace(call: Call, server: Server, path: str, change: dict[str, object], etag: str) -> None:
    from atoll.cli.commands import config

    entity.put(call, config.INSTANCE, server, path, change, etag)


def assign(call: Call) -> None:
    """Give an instance exactly these profiles."""
    server, name, path = _instance(call)
    profiles = [word for word in call.arguments[1].split(",") if word]
    answer = server.fetch(path)
    _replace(call, server, path, answer.metadata | {"profiles": profiles}, answer.etag)
    call.say(f"Profiles {call.arguments[1] or '(none)'} applied to {name}")


def add(call: Call) -> None:
    """Add a profile to an instance's."""
    server, name, path = _instance(call)
    profile = call.arguments[1]
    answer = server.fetch(path)
    profiles = [*(answer.metadata.get("profiles") or ()), profile]
    _replace(call, server, path, answer.metadata | {"profiles": profiles}, answer.etag)
    call.say(f"Profile {profile} added to {name}")


def remove(call: Call) -> None:
    """Take a profile from an instance's."""
    server, name, path = _instance(call)
    profile = call.arguments[1]
    answer = server.fetch(path)
    profiles = answer.metadata.get("profiles") or []
    if profile not in profiles:
        raise CommandError(f"Profile {profile} isn't currently applied to {name}")
    kept = [word for word in profiles if word != profile]
    _replace(call, server, path, answer.metadata | {"profiles": kept}, answer.etag)
    call.say(f"Profile {profile} removed from {name}")
