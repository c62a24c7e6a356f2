"""`completion`: scripts for bash, zsh and fish, and what they ask of the client: `atoll __complete WORD…`."""

from __future__ import annotations

import sys

from atoll.cli import arguments, table
from atoll.cli.errors import CommandError
from atoll.cli.spec import GLOBAL_FLAGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from atoll.cli.config import Config
    from atoll.cli.session import Call
    from atoll.cli.spec import Command

BASH = """_atoll() {
    local IFS=$'\\n'
    COMPREPLY=($(atoll __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -F _atoll atoll
"""
ZSH = """#compdef atoll
_atoll() {
    local -a found
    found=(${(f)"$(atoll __complete "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    compadd -a found
}
compdef _atoll atoll
"""
FISH = """complete -c atoll -f -a '(atoll __complete (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
# Which collection holds the names that may stand for an argument.
COLLECTIONS = {
    "<instance>": "instances",
    "<profile>": "profiles",
    "<profiles>": "profiles",
    "<network>": "networks",
    "<pool>": "storage-pools",
    "<project>": "projects",
    "<operation>": "operations",
    "<image>": "images/aliases",
    "<alias>": "images/aliases",
}


def completion(call: Call) -> None:
    """Print the script for a shell."""
    shell = call.arguments[0]
    if shell not in SCRIPTS:
        raise CommandError(f'No completion for "{shell}": bash, zsh and fish have it')
    sys.stdout.write(SCRIPTS[shell])


def complete(words: list[str], settings: Config) -> int:
    """Print what the last of the words could be, a line each."""
    *before, start = words or [""]
    found = [word for word in _candidates(before, start, settings) if word.startswith(start)]
    sys.stdout.write("".join(f"{word}\n" for word in sorted(found)))
    return 0


def _candidates(before: list[str], start: str, settings: Config) -> list[str]:
    before = [word for word in before if not word.startswith("-")]
    if not before:
        return [name for name, _ in table.top_level(every=True)]
    try:
        path, row, given = table.find(before)
    except CommandError:
        return []
    if start.startswith("-"):
        return [f"--{flag.name}" for flag in (*row.flags, *GLOBAL_FLAGS)]
    if not row.run:
        return [name for name, _ in table.children(path)]
    return _names(path, row, given, settings)


def _names(path: str, row: Command, given: list[str], settings: Config) -> list[str]:
    """The names of the server's objects that may stand at this place."""
    from atoll.cli.session import Call
    from atoll.client.errors import ClientError

    places = [token for token in arguments.tokens(row.usage) if token not in ("[flags]", "[--]")]
    if not places:
        return []
    place = places[min(len(given), len(places) - 1)]
    collection = next((path for word, path in COLLECTIONS.items() if word in place), "")
    if not collection:
        return []
    call = Call(path, [], arguments.Flags(GLOBAL_FLAGS), settings)
    try:
        found = call.server(settings.default_remote).get(f"/1.0/{collection}") or []
    except ClientError:
        return []  # no server, no names: completion is silent
    finally:
        call.close()
    return [name.partition("?")[0].rpartition(f"{collection}/")[2] for name in found if isinstance(name, str)]
