"""`remote`: the servers this client knows."""

from __future__ import annotations

import sys

from atoll.cli import entity
from atoll.cli.config import LOCAL
from atoll.cli.errors import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from atoll.cli.session import Call


def list_(call: Call) -> None:
    """List remotes; the default one is marked."""
    rows = [_row(call, name, row) for name, row in call.config.remotes.items()]
    header = ("NAME", "URL", "PROTOCOL", "AUTH TYPE", "PUBLIC", "STATIC", "GLOBAL")
    raw = dict(sorted(call.config.remotes.items()))
    entity.print_list(call, header, rows, raw)


def _row(call: Call, name: str, row: dict[str, Any]) -> list[str]:
    protocol = row.get("protocol") or "lxd"
    address = row.get("addr") or ""
    auth = row.get("auth_type") or "tls"
    if address.startswith("unix:"):
        auth = "file access"
    elif protocol == "simplestreams" or row.get("public"):
        auth = "none"
    shown = f"{name} (current)" if name == call.config.default_remote else name
    public, static = ("YES" if flag else "NO" for flag in (row.get("public"), name == LOCAL))
    return [shown, address, protocol, auth, public, static, "NO"]


def switch(call: Call) -> None:
    """Make a remote the default one."""
    name = call.arguments[0].removesuffix(":")
    if name not in call.config.remotes:
        raise CommandError(f"Remote {name} doesn't exist")
    call.config.default_remote = name
    call.config.save()


def get_default(call: Call) -> None:
    """Print the name of the default remote."""
    sys.stdout.write(f"{call.config.default_remote}\n")
