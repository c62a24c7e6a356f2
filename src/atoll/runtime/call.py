"""One call of `atolld`: what a command's `run` is given."""

from __future__ import annotations

from atoll.cli.arguments import Flags
from atoll.client.server import Server


class Call:
    """The flags and arguments of one command line. `name` is what the program was called as: `atolld` or `lxd`."""

    __slots__ = ("arguments", "flags", "name")

    def __init__(self, name: str, flags: Flags, arguments: list[str]) -> None:
        self.name = name
        self.flags = flags
        self.arguments = arguments

    def server(self) -> Server:
        """The local daemon, its requests shown under --debug."""
        from atoll.runtime import home

        return home.server(debug=self.flags.on("debug"))
