"""`atolld`: the daemon, and the commands that talk to it. Also answers under the name `lxd`.

Only what a command needs is imported: `atolld waitready` starts without the daemon's libraries.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from atoll.cli import arguments
from atoll.cli.arguments import Flags
from atoll.cli.errors import CommandError, UsageError
from atoll.cli.spec import Command
from atoll.client.errors import ClientError
from atoll.domain.errors import AtollError
from atoll.runtime import help, table
from atoll.runtime.call import Call

VALUE_FLAGS = frozenset(f"--{flag.name}" for flag in table.DAEMON_FLAGS if flag.kind != "switch")


def split(words: Sequence[str]) -> tuple[str, list[str]]:
    """The command that a line names, "" for the daemon itself, and the words that are left: flags may come first."""
    skip = False
    for position, word in enumerate(words):
        if skip:
            skip = False
        elif word in VALUE_FLAGS:
            skip = True
        elif not word.startswith("-"):
            return word, [*words[:position], *words[position + 1 :]]
    return "", list(words)


def _run_daemon(program: str, words: list[str]) -> int:
    flags = Flags(table.DAEMON_FLAGS)
    arguments.parse(words, flags)
    if flags.on("help"):
        print(help.root(program), end="")
        return 0
    call = Call(program, flags, [])
    return _run("version" if flags.on("version") else "daemon", call)


def _run(module: str, call: Call) -> int:
    code: int = import_module(f"atoll.runtime.commands.{module}").run(call)
    return code


def _show_help(program: str, words: list[str]) -> int:
    named = next((word for word in words if word in table.COMMANDS), None)
    print(help.command(program, named, table.COMMANDS[named]) if named else help.root(program), end="")
    return 0


def _run_command(program: str, name: str, row: Command, words: list[str]) -> int:
    flags = Flags((*row.flags, *table.GLOBAL_FLAGS))
    given = arguments.parse(words, flags)
    if flags.on("help"):
        return _show_help(program, [name])
    call = Call(program, flags, given)
    return _run("version" if flags.on("version") else row.run, call)


def dispatch(program: str, words: Sequence[str]) -> int:
    """Run one command line and return its exit code. Raises CommandError, UsageError, AtollError and ClientError."""
    name, rest = split(words)
    if not name:
        return _run_daemon(program, rest)
    if name == "help":
        return _show_help(program, rest)
    row = table.COMMANDS.get(name)
    if row is None:
        raise CommandError(f'unknown command "{name}" for "{program}"')
    try:
        return _run_command(program, name, row, rest)
    except UsageError:
        print(help.command(program, name, row), end="")
        raise


def main() -> int:
    """The console script. Every expected failure is one line on stderr and exit code 1."""
    program = os.path.basename(sys.argv[0]) if sys.argv[0].endswith("lxd") else "atolld"
    try:
        return dispatch(program, sys.argv[1:])
    except UsageError:
        print("Error: Missing required arguments", file=sys.stderr)
    except (CommandError, AtollError, ClientError) as error:
        print(f"Error: {error}", file=sys.stderr)
    except BrokenPipeError:
        # the reader of our output has gone; nothing of it can be told to anybody
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print(file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
