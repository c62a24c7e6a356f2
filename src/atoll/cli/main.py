"""The `atoll` command."""

from __future__ import annotations

import sys

from atoll.cli import arguments, config, table
from atoll.cli.errors import CommandError, UsageError
from atoll.cli.spec import GLOBAL_FLAGS, ROOT_FLAGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from atoll.cli.session import Call
    from atoll.cli.spec import Command

INTERRUPTED = 130


def main() -> NoReturn:
    """Run the process's own command line and end the process.

    It ends at once: taking the interpreter down in order costs 2 ms and does nothing that the kernel would not do.
    """
    import gc
    import posix

    gc.disable()  # a call is over before a collection would pay; parsing a long list sets off dozens
    status = run(sys.argv[1:])
    posix._exit(status)


def run(words: list[str]) -> int:
    """Run one command line; returns the exit code, with all output written."""
    try:
        status = _run(words)
        sys.stdout.flush()
        return status
    except CommandError as error:
        return _fail(str(error))
    except BrokenPipeError:
        _forget_stdout()
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename is not None else str(error.strerror or error))
    except Exception as error:
        # The wire's errors are told by their module: importing it here would cost every call that makes no request.
        from atoll.client.errors import ClientError

        if not isinstance(error, ClientError):
            raise
        return _fail(str(error))


def _fail(message: str) -> int:
    sys.stdout.flush()
    sys.stderr.write(f"Error: {message}\n")
    sys.stderr.flush()
    return 1


def _forget_stdout() -> None:
    """Nobody reads any more: keep the interpreter from complaining about it at exit."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _run(words: list[str]) -> int:
    if not words:
        return _show_root([])
    settings = config.load()
    if settings.aliases:
        from atoll.cli import aliases

        words = aliases.expand(words, settings.aliases)
    leading, rest = _split_leading_flags(words)
    if not rest or rest[0] == "help":
        return _show_help(leading, rest[1:])
    if rest[0] == "__complete":
        from atoll.cli.commands import completion

        return completion.complete(rest[1:], settings)
    path, row, tail = table.find(rest)
    return _call(path, row, leading + tail, settings)


def _split_leading_flags(words: list[str]) -> tuple[list[str], list[str]]:
    """Global flags before the command, and the rest."""
    index = 0
    while index < len(words) and words[index].startswith("-") and words[index] != "--":
        index += 2 if words[index] == "--project" else 1
    return words[:index], words[index:]


def _show_root(leading: list[str]) -> int:
    from atoll.cli import help

    flags = arguments.Flags(ROOT_FLAGS)
    arguments.parse(leading, flags)
    if flags.on("version"):
        from atoll.version import ATOLL_VERSION

        sys.stdout.write(f"{ATOLL_VERSION}\n")
    else:
        sys.stdout.write(help.root(every=flags.on("all") or flags.on("sub-commands")))
    return 0


def _show_help(leading: list[str], topic: list[str]) -> int:
    """`atoll help TOPIC`, and a call without a command."""
    topic = [word for word in topic if not word.startswith("-")]
    if not topic:
        return _show_root(leading)
    from atoll.cli import help

    path, row, _ = table.find(topic)
    sys.stdout.write(help.command(path, row))
    return 0


def _call(path: str, row: Command, words: list[str], settings: config.Config) -> int:
    flags = arguments.Flags((*row.flags, *GLOBAL_FLAGS))
    given = arguments.parse(words, flags)
    if flags.on("help"):
        from atoll.cli import help

        sys.stdout.write(help.command(path, row))
        return 0
    if flags.on("version"):
        return _show_root(["--version"])
    if not row.run:
        from atoll.cli import help

        sys.stderr.write(help.usage(path, row))
        return 0
    return _invoke(path, row, flags, given, settings)


def _invoke(path: str, row: Command, flags: arguments.Flags, given: list[str], settings: config.Config) -> int:
    from atoll.cli.session import Call

    call = Call(path, given, flags, settings)
    try:
        if not flags.on("all"):  # which stands for the arguments
            arguments.check_count(row.usage, given)
        return _function(row.run)(call) or 0
    except UsageError as error:
        from atoll.cli import help

        if row.brief:
            sys.stderr.write(help.usage(path, row))
        else:
            sys.stdout.write(help.command(path, row))
        return 0 if error.bare else _fail(str(error))
    finally:
        call.close()


def _function(name: str) -> Callable[[Call], int | None]:
    """The function of a row's `run`."""
    module, _, path = name.partition(":")
    found: Any = __import__(f"atoll.cli.commands.{module}", fromlist=(path,))
    for part in path.split("."):
        found = getattr(found, part)
    function: Callable[[Call], int | None] = found
    return function
