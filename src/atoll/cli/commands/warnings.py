"""`warning`: what the server wants its administrator to know."""

from __future__ import annotations

from atoll.cli import entity, times
from atoll.cli.errors import CommandError, UsageError
from atoll.client.address import url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from atoll.cli.session import Call

WARNING = entity.Entity(
    show=(
        "uuid", "location", "project", "type", "count", "first_seen_at", "last_seen_at", "last_message", "severity",
        "status", "entity_url",
    ),
    put=(),
)  # fmt: skip
COLUMNS = {
    "c": ("COUNT", "count"),
    "l": ("LAST SEEN", "last_seen_at"),
    "L": ("LOCATION", "location"),
    "f": ("FIRST SEEN", "first_seen_at"),
    "p": ("PROJECT", "project"),
    "s": ("SEVERITY", "severity"),
    "S": ("STATUS", "status"),
    "u": ("UUID", "uuid"),
    "t": ("TYPE", "type"),
}
UPPER = ("severity", "status")


def list_(call: Call) -> None:
    """List warnings; with --all resolved and acknowledged ones too."""
    server, _ = call.split_remote(call.arguments)
    found = server.get(url("warnings", recursion="1")) or []
    chosen = [row for row in found if call.flags.on("all") or row["status"] == "new"]
    letters = call.flags.text("columns").replace(",", "")
    if not any(row.get("location") not in (None, "", "none") for row in found):
        if call.flags.given("columns") and "L" in letters:
            raise CommandError("Can't specify column L when not clustered")
        letters = letters.replace("L", "")
    for letter in letters:
        if letter not in COLUMNS:
            raise CommandError(f"Unknown column shorthand char '{letter}' in '{letters}'")
    rows = [[_cell(COLUMNS[letter][1], row) for letter in letters] for row in chosen]
    entity.print_list(call, tuple(COLUMNS[letter][0] for letter in letters), rows, chosen)


def _cell(field: str, row: dict[str, object]) -> str:
    text = str(row.get(field) or "")
    if field.endswith("_at"):
        return times.long(text)
    return text.upper() if field in UPPER else text


def show(call: Call) -> None:
    """Print a warning."""
    server, name = call.required(call.arguments[0], "warning UUID")
    entity.show(WARNING, server, url("warnings", name))


def acknowledge(call: Call) -> None:
    """Mark a warning as read."""
    server, name = call.required(call.arguments[0], "warning UUID")
    server.request("PUT", url("warnings", name), {"status": "acknowledged"})


def delete(call: Call) -> None:
    """Delete one warning, or with --all every one."""
    if not call.flags.on("all"):
        server, name = call.required(call.arguments[0], "warning UUID")
        server.request("DELETE", url("warnings", name))
        return
    if call.arguments and not call.arguments[0].endswith(":"):
        raise UsageError(bare=False)
    server, _ = call.split_remote(call.arguments)
    for path in server.get(url("warnings")) or []:
        server.request("DELETE", path)
