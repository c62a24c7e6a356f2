"""`alias`: the user's own commands."""

from __future__ import annotations

from atoll.cli import entity
from atoll.cli.errors import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from atoll.cli.session import Call


def list_(call: Call) -> None:
    """List aliases."""
    found = call.config.aliases
    entity.print_list(call, ("ALIAS", "TARGET"), [[name, target] for name, target in found.items()], found)


def add(call: Call) -> None:
    """Add an alias."""
    name, target = call.arguments
    if name in call.config.aliases:
        raise CommandError(f"Alias {name} already exists")
    call.config.aliases[name] = target
    call.config.save()


def remove(call: Call) -> None:
    """Remove an alias."""
    name = call.arguments[0]
    if name not in call.config.aliases:
        raise CommandError(f"Alias {name} doesn't exist")
    del call.config.aliases[name]
    call.config.save()


def rename(call: Call) -> None:
    """Rename an alias."""
    old, new = call.arguments
    if old not in call.config.aliases:
        raise CommandError(f"Alias {old} doesn't exist")
    if new in call.config.aliases:
        raise CommandError(f"Alias {new} already exists")
    call.config.aliases[new] = call.config.aliases.pop(old)
    call.config.save()
