"""The verbs that every kind of named object with a configuration has: networks, profiles, projects, storage pools.

A module of such a kind has them as VERBS; the rows of `atoll.cli.tables.configured` lead there.
"""

from __future__ import annotations

from atoll.cli import entity
from atoll.client.address import url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from atoll.cli.session import Call
    from atoll.client.server import Server


class Verbs:
    """noun: what messages call such an object. argument: what a usage line calls its name.
    collection: where such objects are in the API. changeable: what may be edited, for the help above an edited text.
    blank: whether `get` prints an empty line for a key without a value.
    """

    def __init__(
        self, kind: entity.Entity, *, noun: str, argument: str, collection: str, changeable: str, blank: bool = True
    ) -> None:
        self._kind = kind
        self._title = noun.capitalize()
        self._argument = argument
        self._collection = collection
        self._blank = blank
        self._help = (
            f"### This is a YAML representation of the {noun}.\n"
            "### Any line starting with a '#' will be ignored.\n"
            "###\n"
            f"### Note that {changeable}.\n"
        )

    def one(self, call: Call) -> tuple[Server, str, str]:
        """The server, name and path of the object that the first argument names."""
        server, name = call.required(call.arguments[0], f"{self._argument} name")
        return server, name, url(self._collection, name)

    def make(self, call: Call, **fields: object) -> None:
        """Create one with those fields; with --target only the part of it on that cluster member."""
        server, name, _ = self.one(call)
        server.request("POST", url(self._collection), {"name": name, "description": "", **fields})
        member = call.flags.text("target")
        call.say(f"{self._title} {name} pending on member {member}" if member else f"{self._title} {name} created")

    def show(self, call: Call) -> None:
        """Print it."""
        server, _, path = self.one(call)
        entity.show(self._kind, server, path)

    def delete(self, call: Call) -> None:
        """Delete it."""
        server, name, path = self.one(call)
        server.request("DELETE", path)
        call.say(f"{self._title} {name} deleted")

    def edit(self, call: Call) -> None:
        """Change it."""
        server, _, path = self.one(call)
        entity.edit(call, self._kind, server, path, self._help)

    def get(self, call: Call) -> None:
        """Print one value."""
        server, _, path = self.one(call)
        entity.get_key(server, path, call.arguments[1], blank=self._blank)

    def set_(self, call: Call) -> None:
        """Set values."""
        server, _, path = self.one(call)
        entity.set_keys(call, self._kind, server, path, entity.pairs(call.arguments[1:]))

    def unset(self, call: Call) -> None:
        """Take a value away."""
        server, _, path = self.one(call)
        entity.unset_key(call, self._kind, server, path, call.arguments[1])

    def rename(self, call: Call) -> None:
        """Rename it."""
        server, name, path = self.one(call)
        call.change(server, "POST", path, {"name": call.arguments[1]})
        call.say(f"{self._title} {name} renamed to {call.arguments[1]}")
