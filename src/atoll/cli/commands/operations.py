"""`operation`: what the server does in the background."""

from __future__ import annotations

from atoll.cli import entity, times
from atoll.client.address import url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from atoll.cli.session import Call

OPERATION = entity.Entity(
    show=(
        "id", "class", "description", "created_at", "updated_at", "status", "status_code", "resources", "metadata",
        "may_cancel", "err", "location",
    ),
    put=(),
)  # fmt: skip


def list_(call: Call) -> None:
    """List operations."""
    server, _ = call.split_remote(call.arguments)
    found = server.get(url("operations", recursion="1")) or {}
    operations = [row for rows in found.values() for row in rows]
    rows = [
        [
            row["id"],
            row["class"].upper(),
            row["description"],
            row["status"].upper(),
            "YES" if row["may_cancel"] else "NO",
            times.minute(row["created_at"]),
        ]
        for row in operations
    ]
    entity.print_list(call, ("ID", "TYPE", "DESCRIPTION", "STATUS", "CANCELABLE", "CREATED"), rows, operations)


def show(call: Call) -> None:
    """Print an operation."""
    server, name = call.required(call.arguments[0], "operation name")
    entity.show(OPERATION, server, url("operations", name))


def delete(call: Call) -> None:
    """Cancel an operation."""
    server, name = call.required(call.arguments[0], "operation name")
    server.request("DELETE", url("operations", name))
    call.say(f"Operation {name} deleted")
