"""The words that command tables are written in: commands and flags, as plain data.

Start-up time is the reason these are plain classes: `dataclasses`, `enum` and `typing` cost 4 to 19 ms to import,
which is more than everything else this client does before its first request.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    FlagKind = Literal["text", "switch", "list", "int"]


class Flag:
    """One flag: `--name`, and `-short` where there is one.

    kind: "switch" takes no value; "text" and "int" keep the last value; "list" collects every value.
    implied: the value of a bare `--name`; such a flag takes another value only as `--name=value`.
    """

    __slots__ = ("default", "help", "implied", "kind", "name", "short")

    def __init__(
        self,
        name: str,
        help: str,
        *,
        kind: FlagKind,
        short: str = "",
        default: str = "",
        implied: str = "",
    ) -> None:
        self.name = name
        self.help = help
        self.kind: FlagKind = kind
        self.short = short
        self.default = default
        self.implied = implied


def switch(name: str, help: str, *, short: str = "") -> Flag:
    """A flag that is on or off."""
    return Flag(name, help, kind="switch", short=short)


def option(name: str, help: str, *, kind: FlagKind = "text", short: str = "", default: str = "", implied: str = "") -> Flag:
    """A flag with a value."""
    return Flag(name, help, kind=kind, short=short, default=default, implied=implied)


class Command:
    """One command, or (without `run`) a group of commands.

    usage: the arguments, which also say how many there may be: see `atoll.cli.arguments.bounds`.
    run: "module:function" or "module:object.method" below `atoll.cli.commands`, imported only when the command runs.
    brief: a call without arguments prints the usage alone, not the description.
    hidden: listed by `atoll --help --all` only.
    """

    __slots__ = ("aliases", "brief", "detail", "examples", "flags", "hidden", "run", "summary", "usage")

    def __init__(
        self,
        *,
        summary: str,
        usage: str = "",
        detail: str = "",
        examples: str = "",
        aliases: tuple[str, ...] = (),
        flags: tuple[Flag, ...] = (),
        run: str = "",
        brief: bool = False,
        hidden: bool = False,
    ) -> None:
        self.summary = summary
        self.usage = usage
        self.detail = detail
        self.examples = examples
        self.aliases = aliases
        self.flags = flags
        self.run = run
        self.brief = brief
        self.hidden = hidden


FORMAT = option("format", "Format (csv|json|table|yaml|compact)", short="f", default="table")
TARGET = option("target", "Cluster member name")

GLOBAL_FLAGS = (
    switch("debug", "Show all debug messages"),
    switch("force-local", "Force using the local unix socket"),
    switch("help", "Print help", short="h"),
    option("project", "Override the source project"),
    switch("quiet", "Don't show progress information", short="q"),
    switch("sub-commands", "Use with help or --help to view sub-commands"),
    switch("verbose", "Show all information messages", short="v"),
    switch("version", "Print version number"),
)
ROOT_FLAGS = (switch("all", "Show less common commands"), *GLOBAL_FLAGS)
