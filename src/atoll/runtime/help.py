"""Help texts of `atolld`, in the layout its predecessors' scripts and users know."""

from __future__ import annotations

from collections.abc import Sequence

from atoll.cli.spec import Command, Flag
from atoll.runtime import table


def _indent(text: str) -> str:
    return "\n".join("  " + line if line else "" for line in text.split("\n"))


def _flag_lines(flags: Sequence[Flag]) -> str:
    heads = [f"  -{flag.short}, --{flag.name}" if flag.short else f"      --{flag.name}" for flag in flags]
    width = max(map(len, heads)) + 3
    return "\n".join(head.ljust(width) + flag.help for head, flag in zip(heads, flags, strict=True))


def root(program: str) -> str:
    """`atolld --help`."""
    rows = {name: row.summary for name, row in table.COMMANDS.items() if not row.hidden} | {"help": "Help about any command"}
    width = max(map(len, rows)) + 3
    commands = "\n".join(f"  {name.ljust(width)}{rows[name]}" for name in sorted(rows))
    return "\n\n".join(
        [
            "Description:\n" + _indent(f"The Atoll container manager (daemon)\n\n{table.DAEMON_DETAIL}"),
            f"Usage:\n  {program} [flags]\n  {program} [command]",
            "Available Commands:\n" + commands,
            "Flags:\n" + _flag_lines(table.DAEMON_FLAGS),
            f'Use "{program} [command] --help" for more information about a command.\n',
        ]
    )


def command(program: str, name: str, row: Command) -> str:
    """`atolld NAME --help`."""
    text = f"{row.summary}\n\n{row.detail}" if row.detail else row.summary
    usage = f"{program} {name} {row.usage}".rstrip()
    parts = ["Description:\n" + _indent(text), f"Usage:\n  {usage} [flags]"]
    if row.examples:
        parts.append("Examples:\n" + _indent(row.examples))
    if row.flags:
        parts.append("Flags:\n" + _flag_lines(row.flags))
    return "\n\n".join([*parts, "Global Flags:\n" + _flag_lines(table.GLOBAL_FLAGS) + "\n"])
