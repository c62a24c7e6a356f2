"""`list`: instances as rows."""

from __future__ import annotations

import sys

from atoll.cli import instance_columns, instance_filter, output
from atoll.cli.errors import CommandError
from atoll.client.address import url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from atoll.cli.session import Call

FAST_COLUMNS = "nsacPt"
NO_LOCATION = ("", "none")


def run(call: Call) -> None:
    """List instances, by one request."""
    flags = call.flags
    kind = output.check_format(flags.text("format"))
    server, filters = call.split_remote(call.arguments)
    letters = _letters(call)
    columns = instance_columns.parse(letters)
    everywhere = flags.on("all-projects")
    deep = kind in ("json", "yaml") or any(column.needs_state for column in columns) or _asks_address(filters)
    path = url("instances", recursion="2" if deep else "1", all_projects="true" if everywhere else "")
    instances: list[dict[str, Any]] = server.get(path) or []
    chosen = [row for row in instances if instance_filter.matches(row, filters)] if filters else instances
    if kind in ("json", "yaml"):
        sys.stdout.write(output.render(kind, (), (), chosen))
        return
    columns = _without_location(columns, instances, asked="L" in letters.split(",")[0] and flags.given("columns"))
    chosen.sort(key=lambda row: (row.get("project", ""), output.natural(row["name"])))
    rows = [[column.text(row) for column in columns] for row in chosen]
    header = [column.header for column in columns]
    sys.stdout.write(output.render(kind, header, rows, chosen))


def _asks_address(filters: list[str]) -> bool:
    return any(word.startswith(("ipv4=", "ipv6=")) for word in filters)


def _letters(call: Call) -> str:
    flags = call.flags
    if flags.on("fast"):
        if flags.given("columns"):
            raise CommandError("Can't specify --fast with --columns")
        return FAST_COLUMNS
    letters = flags.text("columns")
    if flags.on("all-projects") and not flags.given("columns"):
        return "e" + letters
    return letters


def _without_location(
    columns: list[instance_columns.Column], instances: list[dict[str, Any]], *, asked: bool
) -> list[instance_columns.Column]:
    """Leave out the location where the server is no cluster, which the instances themselves tell."""
    if any(row.get("location", "") not in NO_LOCATION for row in instances):
        return columns
    kept = [column for column in columns if column.header != "LOCATION"]
    if asked and len(kept) < len(columns):
        raise CommandError("Can't specify column L when not clustered")
    return kept
