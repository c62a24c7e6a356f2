"""`image alias`: names for images."""

from __future__ import annotations

from atoll.cli import entity
from atoll.cli.commands import image_source
from atoll.client.address import url
from atoll.client.errors import ServerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from atoll.cli.session import Call
    from atoll.client.server import Server


def list_(call: Call) -> None:
    """List aliases."""
    server, filters = call.split_remote(call.arguments)
    found = server.get(url("images", "aliases", recursion="1")) or []
    chosen = [row for row in found if _matches(row, filters)]
    rows = [
        [row["name"], row["target"][:12], (row.get("type") or "container").upper(), row.get("description") or ""]
        for row in chosen
    ]
    entity.print_list(call, ("ALIAS", "FINGERPRINT", "TYPE", "DESCRIPTION"), rows, chosen)


def _matches(row: dict[str, Any], filters: list[str]) -> bool:
    return all(word in row["name"] or word in row["target"] for word in filters)


def create(call: Call) -> None:
    """Name an image."""
    server, name = call.required(call.arguments[0], "alias name")
    body = {"name": name, "target": call.arguments[1], "description": ""}
    server.request("POST", url("images", "aliases"), body)


def assign(server: Server, name: str, fingerprint: str) -> None:
    """Let an alias mean this image, whatever it meant before."""
    try:
        server.request("PATCH", url("images", "aliases", name), {"target": fingerprint})
    except ServerError as error:
        if error.status != image_source.NOT_FOUND:
            raise
        server.request("POST", url("images", "aliases"), {"name": name, "target": fingerprint, "description": ""})


def delete(call: Call) -> None:
    """Delete an alias."""
    server, name = call.required(call.arguments[0], "alias name")
    server.request("DELETE", url("images", "aliases", name))


def rename(call: Call) -> None:
    """Rename an alias."""
    server, name = call.required(call.arguments[0], "alias name")
    server.request("POST", url("images", "aliases", name), {"name": call.arguments[1]})
