"""`image list|info|show|edit` and properties."""

from __future__ import annotations

import sys

from atoll.cli import entity, times
from atoll.cli.commands import image_source
from atoll.cli.errors import CommandError
from atoll.client.address import url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from atoll.cli.session import Call
    from atoll.client.server import Server

    Image = dict[str, Any]

_FIELDS = ("auto_update", "properties", "public", "expires_at", "profiles")
IMAGE = entity.Entity(show=_FIELDS, put=_FIELDS)
HELP = """### This is a YAML representation of the image properties.
### Any line starting with a '# will be ignored.
###
### Each property is represented by a single line:
### An example would be:
###  description: My custom image
"""


def mebibytes(size: int) -> str:
    """A size as image lists show it."""
    return f"{size / 1024 / 1024:.2f}MB"


def _aliases(image: Image) -> list[str]:
    return [row["name"] for row in image.get("aliases") or ()]


def _shortest_alias(image: Image) -> str:
    names = _aliases(image)
    if not names:
        return ""
    more = f" ({len(names) - 1} more)" if len(names) > 1 else ""
    return min(names, key=len) + more


COLUMNS: dict[str, tuple[str, Callable[[Image], str]]] = {
    "l": ("ALIAS", _shortest_alias),
    "L": ("ALIASES", lambda image: "\n".join(_aliases(image))),
    "f": ("FINGERPRINT", lambda image: image["fingerprint"][:12]),
    "F": ("FINGERPRINT", lambda image: image["fingerprint"]),
    "p": ("PUBLIC", lambda image: "yes" if image.get("public") else "no"),
    "d": ("DESCRIPTION", lambda image: (image.get("properties") or {}).get("description", "")),
    "a": ("ARCHITECTURE", lambda image: image.get("architecture") or ""),
    "s": ("SIZE", lambda image: mebibytes(image.get("size") or 0)),
    "u": ("UPLOAD DATE", lambda image: times.long(image.get("uploaded_at") or "")),
    "t": ("TYPE", lambda image: (image.get("type") or "container").upper()),
}


def list_(call: Call) -> None:
    """List images."""
    server, filters = call.split_remote(call.arguments)
    letters = call.flags.text("columns").replace(",", "")
    for letter in letters:
        if letter not in COLUMNS:
            raise CommandError(f"Unknown column shorthand char '{letter}' in '{letters}'")
    found = [image for image in server.get(url("images", recursion="1")) or [] if _matches(image, filters)]
    rows = [[COLUMNS[letter][1](image) for letter in letters] for image in found]
    entity.print_list(call, tuple(COLUMNS[letter][0] for letter in letters), rows, found)


def _matches(image: Image, filters: list[str]) -> bool:
    return all(_matches_one(image, word) for word in filters)


def _matches_one(image: Image, word: str) -> bool:
    key, equals, value = word.partition("=")
    if not equals:
        return image["fingerprint"].startswith(word) or any(word in name for name in _aliases(image))
    if key in ("type", "architecture"):
        return str(image.get(key) or "").lower() == value.lower()
    properties: dict[str, str] = image.get("properties") or {}
    return any(name.startswith(key) and found.lower() == value.lower() for name, found in properties.items())


def one(call: Call) -> tuple[Server, str]:
    """The server and the path of the image the call names first."""
    server, name = call.required(call.arguments[0], "image name")
    return server, url("images", image_source.required(server, name))


def show(call: Call) -> None:
    """Print the properties."""
    server, path = one(call)
    entity.show(IMAGE, server, path)


def edit(call: Call) -> None:
    """Change the properties."""
    server, path = one(call)
    entity.edit(call, IMAGE, server, path, HELP)


def info(call: Call) -> None:
    """Show what there is to know of an image."""
    server, path = one(call)
    sys.stdout.write("\n".join(_info(server.get(path))) + "\n")


def _info(image: Image) -> Iterator[str]:
    yield f"Fingerprint: {image['fingerprint']}"
    yield f"Size: {mebibytes(image.get('size') or 0)}"
    yield f"Architecture: {image.get('architecture') or ''}"
    yield f"Type: {image.get('type') or 'container'}"
    yield f"Public: {'yes' if image.get('public') else 'no'}"
    yield "Timestamps:"
    if created := times.minute(image.get("created_at") or ""):
        yield f"    Created: {created}"
    yield f"    Uploaded: {times.minute(image.get('uploaded_at') or '')}"
    yield f"    Expires: {times.minute(image.get('expires_at') or '', 'never')}"
    yield f"    Last used: {times.minute(image.get('last_used_at') or '', 'never')}"
    yield "Properties:"
    yield from (f"    {key}: {value}" for key, value in sorted((image.get("properties") or {}).items()))
    yield "Aliases:"
    for alias in image.get("aliases") or ():
        yield f"    - {alias['name']}" + (f" ({alias['description']})" if alias.get("description") else "")
    yield f"Cached: {'yes' if image.get('cached') else 'no'}"
    yield f"Auto update: {'enabled' if image.get('auto_update') else 'disabled'}"
    if source := image.get("update_source"):
        yield "Source:"
        yield f"    Server: {source['server']}\n    Protocol: {source['protocol']}\n    Alias: {source['alias']}"
    profiles = image.get("profiles") or ()
    yield "Profiles:" if profiles else "Profiles: []"
    yield from (f"    - {name}" for name in profiles)


def get_property(call: Call) -> None:
    """Print a property."""
    server, path = one(call)
    properties = server.get(path).get("properties") or {}
    if call.arguments[1] not in properties:
        raise CommandError("Property not found")
    sys.stdout.write(properties[call.arguments[1]] + "\n")


def set_property(call: Call) -> None:
    """Set a property."""
    server, path = one(call)
    answer = server.fetch(path)
    properties = (answer.metadata.get("properties") or {}) | {call.arguments[1]: call.arguments[2]}
    entity.put(call, IMAGE, server, path, answer.metadata | {"properties": properties}, answer.etag)


def unset_property(call: Call) -> None:
    """Take a property away."""
    server, path = one(call)
    answer = server.fetch(path)
    properties = answer.metadata.get("properties") or {}
    properties.pop(call.arguments[1], None)
    entity.put(call, IMAGE, server, path, answer.metadata | {"properties": properties}, answer.etag)
