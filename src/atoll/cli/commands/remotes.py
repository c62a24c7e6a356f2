"""`remote`: the servers this client knows."""

from __future__ import annotations

import sys

from atoll.cli import entity
from atoll.cli.config import LOCAL, is_remote_name
from atoll.cli.errors import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from atoll.cli.session import Call


def list_(call: Call) -> None:
    """List remotes; the default one is marked."""
    rows = [_row(call, name, row) for name, row in call.config.remotes.items()]
    header = ("NAME", "URL", "PROTOCOL", "AUTH TYPE", "PUBLIC", "STATIC", "GLOBAL")
    shown = _documents if call.flags.text("format") == "json" else _written
    raw = {name: shown(name, row) for name, row in sorted(call.config.remotes.items())}
    entity.print_list(call, header, rows, raw)


def _written(_: str, row: dict[str, Any]) -> dict[str, Any]:
    """A remote in YAML: as the configuration has it."""
    return {key: row[key] for key in sorted(row) if row[key] != "" or key == "addr"}


def _documents(name: str, row: dict[str, Any]) -> dict[str, Any]:
    """A remote in JSON, under the names that `lxc` gives to its parts there."""
    return {
        "Addr": row.get("addr") or "",
        "AuthType": row.get("auth_type") or "",
        "Domain": row.get("domain") or "",
        "Project": row.get("project") or "",
        "Protocol": row.get("protocol") or "",
        "Public": bool(row.get("public")),
        "Global": False,
        "Static": name == LOCAL,
    }


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


def _known(call: Call) -> str:
    """The remote that the first argument names."""
    name = call.arguments[0].removesuffix(":")
    if name not in call.config.remotes:
        raise CommandError(f"Remote {name} doesn't exist")
    return name


def _changeable(call: Call, what: str) -> str:
    name = _known(call)
    if name == LOCAL:
        raise CommandError(f"Remote {name} is static and cannot be {what}")
    return name


def switch(call: Call) -> None:
    """Make a remote the default one."""
    call.config.default_remote = _known(call)
    call.config.save()


def remove(call: Call) -> None:
    """Forget a remote, and the certificate of its server."""
    name = _changeable(call, "modified")
    if name == call.config.default_remote:
        raise CommandError("Can't remove the default remote")
    call.config.remove(name)
    call.config.save()
    call.config.forget_known(name)


def rename(call: Call) -> None:
    """Give a remote another name."""
    config = call.config
    name, new = _changeable(call, "modified"), call.arguments[1].removesuffix(":")
    if new in config.remotes:
        raise CommandError(f"Remote {new} already exists")
    if not is_remote_name(new):
        raise CommandError(f"{new!r} cannot be the name of a remote: use letters, digits, '.', '_' and '-'")
    config.move_known(name, new)
    config.remotes[new] = config.remove(name)
    if config.default_remote == name:
        config.default_remote = new
    config.save()


def set_url(call: Call) -> None:
    """Change the address of a remote."""
    from atoll.cli.commands.remote_add import normal

    name = _changeable(call, "modified")
    row = call.config.remotes[name]
    row["addr"] = call.arguments[1] if row.get("protocol") == "simplestreams" else normal(call.arguments[1])
    call.config.save()


def get_default(call: Call) -> None:
    """Print the name of the default remote."""
    sys.stdout.write(f"{call.config.default_remote}\n")
