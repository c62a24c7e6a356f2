"""What `show`, `edit`, `get`, `set`, `unset` have in common: objects with a configuration that are fetched, changed and put back.

An Entity is such a kind of object: where it lives, what `show` prints and what a PUT takes.
"""

from __future__ import annotations

import sys

from atoll.cli import output, terminal, yaml_out
from atoll.cli.errors import CommandError
from atoll.client.errors import ServerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from atoll.cli.session import Call
    from atoll.client.server import Server

# Maps whose keys have no order of their own: shown in natural order.
SORTED_MAPS = frozenset(("config", "expanded_config", "devices", "expanded_devices", "properties"))


class Entity:
    """show: fields in the order `show` prints them. put: the fields a PUT takes. etag: whether PUT is guarded."""

    __slots__ = ("etag", "put", "show")

    def __init__(self, *, show: tuple[str, ...], put: tuple[str, ...], etag: bool = True) -> None:
        self.show = show
        self.put = put
        self.etag = etag


def ordered(value: dict[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    """The fields, in that order, that the object has; maps in natural order, empty ones for null."""
    return {name: _tidy(name, value[name]) for name in fields if name in value}


def _tidy(name: str, value: Any) -> Any:
    if name not in SORTED_MAPS:
        return [] if value is None else value
    return {key: _tidy("config", value[key]) if isinstance(value[key], dict) else value[key]
            for key in sorted(value or {}, key=output.natural)}  # fmt: skip


def print_yaml(value: Any) -> None:
    """A YAML document, with the blank line lists of lines end in."""
    sys.stdout.write(yaml_out.dump(value))


def show(kind: Entity, server: Server, path: str) -> None:
    """Print the object."""
    print_yaml(ordered(server.get(path), kind.show))


def put(call: Call, kind: Entity, server: Server, path: str, value: dict[str, Any], etag: str) -> None:
    """Put back the writable fields of a fetched and changed object."""
    body = {name: value[name] for name in kind.put if name in value}
    call.change(server, "PUT", path, body, etag=etag if kind.etag else "")


def get_key(server: Server, path: str, key: str, *, blank: bool = True) -> None:
    """Print one configuration value; for a key without a value an empty line, or with blank=False nothing."""
    config = server.get(path).get("config") or {}
    if blank or key in config:
        sys.stdout.write(f"{config.get(key, '')}\n")


def set_keys(call: Call, kind: Entity, server: Server, path: str, pairs: dict[str, str]) -> None:
    """Set configuration values."""
    answer = server.fetch(path)
    answer.metadata["config"] = (answer.metadata.get("config") or {}) | pairs
    put(call, kind, server, path, answer.metadata, answer.etag)


def unset_key(call: Call, kind: Entity, server: Server, path: str, key: str, *, strict: bool = False) -> None:
    """Take a configuration value away; strict: an error when there is none."""
    answer = server.fetch(path)
    config = answer.metadata.get("config") or {}
    if strict and key not in config:
        raise CommandError(f"Can't unset key '{key}', it's not currently set")
    config.pop(key, None)
    answer.metadata["config"] = config
    put(call, kind, server, path, answer.metadata, answer.etag)


def edit(call: Call, kind: Entity, server: Server, path: str, help_text: str = "") -> None:
    """Replace the writable fields: by standard input, else by what the user makes of them in an editor."""
    from atoll.cli import yaml_in

    text = terminal.read_input()
    if text is not None:
        put(call, kind, server, path, yaml_in.mapping(text), "")
        return
    answer = server.fetch(path)
    server.close()
    text = help_text + yaml_out.dump(ordered(answer.metadata, kind.show))
    while True:
        text = terminal.edit(text)
        try:
            put(call, kind, server, path, yaml_in.mapping(text), answer.etag)
        except (CommandError, ServerError) as error:
            sys.stderr.write(f"Config parsing error: {error}\n")
            if terminal.ask("Press enter to open the editor again or ctrl+c to abort change\n") is None:
                return
            continue
        return


def pairs(words: list[str]) -> dict[str, str]:
    """KEY=VALUE words, or the older KEY VALUE; a value "-" is read from standard input."""
    if len(words) == 2 and "=" not in words[0]:
        return {words[0]: _value(words[1])}
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise CommandError(f"Invalid key=value configuration: {word}")
        found[key] = _value(value)
    return found


def _value(text: str) -> str:
    return sys.stdin.read() if text == "-" else text


def key_values(words: list[str]) -> dict[str, str]:
    """KEY=VALUE words of commands that create something."""
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise CommandError(f"Bad key=value pair: {word}")
        found[key] = value
    return found


def print_list(call: Call, header: tuple[str, ...], rows: list[list[str]], raw: Any, kind: Entity | None = None) -> None:
    """A list, sorted, in the format asked for; objects of a kind with their fields in the order that `show` has."""
    form = output.check_format(call.flags.text("format"))
    if kind is not None and form in ("json", "yaml"):
        raw = [ordered(row, kind.show) for row in raw]
    sys.stdout.write(output.render(form, header, output.natural_rows(rows), raw))
