"""Help texts, drawn from the command tables in cobra's layout."""

from __future__ import annotations

from atoll.cli import table
from atoll.cli.spec import GLOBAL_FLAGS, ROOT_FLAGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from atoll.cli.spec import Command, Flag

PROGRAM = "atoll"
ROOT_DETAIL = """All of Atoll's features can be driven through the various commands below.
For help with any of those, simply call them with --help."""


def _indent(text: str) -> str:
    return "\n".join("  " + line if line else "" for line in text.split("\n"))


def _default_note(flag: Flag) -> str:
    if not flag.default:
        return ""
    return f" (default {flag.default})" if flag.kind == "int" else f' (default "{flag.default}")'


def _flag_lines(flags: Sequence[Flag]) -> str:
    left = []
    for flag in flags:
        short = f"-{flag.short}, " if flag.short else "    "
        implied = f'[="{flag.implied}"]' if flag.implied else ""
        left.append(f"  {short}--{flag.name}{implied}")
    width = max(map(len, left)) + 3
    return "\n".join(head.ljust(width) + flag.help + _default_note(flag) for head, flag in zip(left, flags, strict=True))


def _command_lines(rows: Sequence[tuple[str, str]]) -> str:
    width = max(11, *(len(name) for name, _ in rows))
    return "\n".join(f"  {name.ljust(width)} {summary}" for name, summary in rows)


def root(*, every: bool) -> str:
    """`atoll --help`; `every`: hidden commands too."""
    rows = table.top_level(every=every)
    return "\n\n".join(
        [
            "Description:\n" + _indent(f"Command line client for Atoll\n\n{ROOT_DETAIL}"),
            f"Usage:\n  {PROGRAM} [command]",
            "Available Commands:\n" + _command_lines(rows),
            "Flags:\n" + _flag_lines(ROOT_FLAGS),
            f'Use "{PROGRAM} [command] --help" for more information about a command.\n',
        ]
    )


def description(command: Command) -> str:
    """The first part of a command's help."""
    text = command.summary + (f"\n\n{command.detail}" if command.detail else "")
    return "Description:\n" + _indent(text) + "\n\n"


def usage(path: str, command: Command) -> str:
    """A command's help without its description."""
    call = f"{PROGRAM} {path}"
    if not command.run:
        return _group_usage(path, call)
    arguments = f" {command.usage}" if command.usage else ""
    flags = "" if "[flags]" in arguments else " [flags]"
    parts = [f"Usage:\n  {call}{arguments}{flags}"]
    if command.aliases:
        name = path.rpartition(" ")[2]
        parts.append("Aliases:\n  " + ", ".join([name, *command.aliases]))
    if command.examples:
        parts.append("Examples:\n" + _indent(command.examples))
    if command.flags:
        parts.append("Flags:\n" + _flag_lines(command.flags))
    parts.append("Global Flags:\n" + _flag_lines(GLOBAL_FLAGS) + "\n")
    return "\n\n".join(parts)


def _group_usage(path: str, call: str) -> str:
    return "\n\n".join(
        [
            f"Usage:\n  {call} [flags]\n  {call} [command]",
            "Available Commands:\n" + _command_lines(table.children(path)),
            "Global Flags:\n" + _flag_lines(GLOBAL_FLAGS),
            f'Use "{call} [command] --help" for more information about a command.\n',
        ]
    )


def command(path: str, row: Command) -> str:
    """`atoll PATH --help`."""
    return description(row) + usage(path, row)
