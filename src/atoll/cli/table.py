"""Finding commands: the top level is listed here, each family's rows are imported only when one of them is named."""

from __future__ import annotations

from atoll.cli.errors import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from atoll.cli.spec import Command

# name: (family, summary). The summary repeats the row's own, so that `atoll --help` reads no family;
# tests/unit/cli/test_table.py keeps the two alike.
TOP = {
    "alias": ("admin", "Manage command aliases"),
    "completion": ("admin", "Generate the completion script for a shell"),
    "config": ("config", "Manage instance and server configuration options"),
    "console": ("instances", "Attach to instance consoles"),
    "copy": ("moving", "Copy instances within a server or between servers"),
    "delete": ("instances", "Delete instances and snapshots"),
    "exec": ("instances", "Execute commands in instances"),
    "export": ("moving", "Export instances as backup tarballs."),
    "file": ("files", "Manage files in instances"),
    "image": ("images", "Manage images"),
    "import": ("moving", "Import backups of instances including their snapshots."),
    "info": ("instances", "Show instance or server information"),
    "init": ("instances", "Create instances from images"),
    "launch": ("instances", "Create and start instances from images"),
    "list": ("instances", "List instances"),
    "monitor": ("admin", "Monitor a local or remote Atoll server"),
    "move": ("moving", "Move instances within a server or between servers"),
    "network": ("networks", "Manage and attach instances to networks"),
    "operation": ("admin", "List, show and delete background operations"),
    "pause": ("instances", "Pause instances"),
    "profile": ("profiles", "Manage profiles"),
    "project": ("projects", "Manage projects"),
    "publish": ("moving", "Publish instances as images"),
    "query": ("admin", "Send a raw query to Atoll"),
    "remote": ("admin", "Manage the list of remote servers"),
    "rename": ("instances", "Rename instances and snapshots"),
    "restart": ("instances", "Restart instances"),
    "restore": ("instances", "Restore instances from snapshots"),
    "snapshot": ("instances", "Create instance snapshots"),
    "start": ("instances", "Start instances"),
    "stop": ("instances", "Stop instances"),
    "storage": ("storage", "Manage storage pools and volumes"),
    "top": ("instances", "Show what running instances use"),
    "version": ("admin", "Show local and remote versions"),
    "wait": ("instances", "Wait until instances are ready"),
    "warning": ("admin", "Manage warnings"),
}
HIDDEN = frozenset(("init", "monitor", "pause", "query"))
TOP_ALIASES = {"cp": "copy", "ls": "list", "mv": "move", "rm": "delete"}


def family(name: str) -> Mapping[str, Command]:
    """The rows of one family, by path ("config device add")."""
    module = __import__(f"atoll.cli.tables.{name}", fromlist=("COMMANDS",))
    rows: Mapping[str, Command] = module.COMMANDS
    return rows


def top_level(*, every: bool) -> list[tuple[str, str]]:
    """Name and summary of the commands of the first level, `help` among them; `every`: hidden ones too."""
    rows = [(name, summary) for name, (_, summary) in TOP.items() if every or name not in HIDDEN]
    return sorted([*rows, ("help", "Help about any command")])


def children(path: str) -> list[tuple[str, str]]:
    """Name and summary of the commands of a group."""
    prefix = path + " "
    rows = family(TOP[path.split(" ")[0]][0])
    found = [(name.removeprefix(prefix), row.summary) for name, row in rows.items() if name.startswith(prefix)]
    return sorted(pair for pair in found if " " not in pair[0])


def _child(rows: Mapping[str, Command], path: str, word: str) -> str | None:
    """The path of the command that `word` names below a group, by name or alias."""
    direct = f"{path} {word}"
    if direct in rows:
        return direct
    depth = path.count(" ") + 1
    for name, row in rows.items():
        if word in row.aliases and name.startswith(path + " ") and name.count(" ") == depth:
            return name
    return None


def _unknown(word: str, group: str, known: Iterable[str]) -> CommandError:
    from difflib import get_close_matches  # here, for it costs milliseconds that only a mistake is worth

    text = f'unknown command "{word}" for "{group}"'
    near = get_close_matches(word, known)
    return CommandError("\n".join((text, "", "Did you mean this?", *(f"\t{name}" for name in near))) if near else text)


def find(words: list[str]) -> tuple[str, Command, list[str]]:
    """The command that `words` begin with: its path, its row, and the words that are left.

    A global flag may stand between the words of a path; it is left in the rest.
    """
    name = TOP_ALIASES.get(words[0], words[0])
    if name not in TOP:
        raise _unknown(words[0], "atoll", TOP)
    rows = family(TOP[name][0])
    path, rest = name, words[1:]
    skipped: list[str] = []
    while rest and not rows[path].run:
        word = rest[0]
        if word.startswith("-"):
            take = 2 if word == "--project" else 1
            skipped += rest[:take]
            rest = rest[take:]
            continue
        child = _child(rows, path, word)
        if child is None:
            raise _unknown(word, f"atoll {path}", [name for name, _ in children(path)])
        path, rest = child, rest[1:]
    return path, rows[path], skipped + rest
