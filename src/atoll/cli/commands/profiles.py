"""`profile`: profiles, and which instances use them."""

from __future__ import annotations

from atoll.cli import entity, verbs
from atoll.cli.errors import CommandError
from atoll.client.address import url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from atoll.cli.session import Call
    from atoll.client.server import Server

PROFILE = entity.Entity(show=("config", "description", "devices", "name", "used_by"), put=("config", "description", "devices"))
VERBS = verbs.Verbs(
    PROFILE, noun="profile", argument="profile", collection="profiles",
    changeable="the name is shown but cannot be changed",
)  # fmt: skip


def list_(call: Call) -> None:
    """List profiles."""
    server, _ = call.split_remote(call.arguments)
    found = server.get(url("profiles", recursion="1")) or []
    rows = [[row["name"], row.get("description") or "", str(len(row.get("used_by") or ()))] for row in found]
    entity.print_list(call, ("NAME", "DESCRIPTION", "USED BY"), rows, found, PROFILE)


def create(call: Call) -> None:
    """Create a profile."""
    VERBS.make(call, config={}, devices={})


def copy(call: Call) -> None:
    """Copy a profile, perhaps to another remote or project."""
    server, name, path = VERBS.one(call)
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
