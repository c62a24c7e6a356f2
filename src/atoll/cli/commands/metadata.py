"""`config metadata` and `config template`: what an instance has of its image."""

from __future__ import annotations

import sys

from atoll.cli import entity, terminal
from atoll.cli.errors import CommandError
from atoll.client.address import url
from atoll.client.server import decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from atoll.cli.session import Call
    from atoll.client.server import Server

_FIELDS = ("architecture", "creation_date", "expiry_date", "properties", "templates")
METADATA = entity.Entity(show=_FIELDS, put=_FIELDS)
HELP = """### This is a YAML representation of the instance metadata.
### Any line starting with a '# will be ignored.
###
### A sample configuration looks like:
###
### architecture: x86_64
### creation_date: 1477146654
### expiry_date: 0
### properties:
###   architecture: x86_64
###   description: BusyBox x86_64
###   name: busybox-x86_64
###   os: BusyBox
### templates:
###   /template:
###     when:
###     - ""
###     create_only: false
###     template: template.tpl
###     properties: {}
"""


def _path(call: Call) -> tuple[Server, str]:
    """The server, and the address of the metadata of the instance that the call names first."""
    server, name = call.required(call.arguments[0], "instance name")
    return server, url("instances", name, "metadata")


def show(call: Call) -> None:
    """Print the metadata."""
    server, path = _path(call)
    entity.show(METADATA, server, path)


def edit(call: Call) -> None:
    """Change the metadata."""
    server, path = _path(call)
    entity.edit(call, METADATA, server, path, HELP)


def _template(call: Call) -> tuple[Server, str]:
    server, name = call.required(call.arguments[0], "instance name")
    return server, url("instances", name, "metadata", "templates", path=call.arguments[1])


def list_templates(call: Call) -> None:
    """List the templates."""
    server, path = _path(call)
    found: list[str] = server.get(f"{path}/templates") or []
    entity.print_list(call, ("filename",), [[name] for name in found], found)


def show_template(call: Call) -> None:
    """Print a template."""
    server, path = _template(call)
    sys.stdout.buffer.write(_text(server, path))


def create_template(call: Call) -> None:
    """Make an empty template."""
    server, path = _template(call)
    _write(server, path, b"")


def edit_template(call: Call) -> None:
    """Change a template: in an editor, or by standard input."""
    server, path = _template(call)
    if not terminal.is_terminal(0):
        _write(server, path, sys.stdin.buffer.read())
        return
    try:
        text = _text(server, path).decode()
    except UnicodeDecodeError as error:
        raise CommandError(f"The template is no text: {error}") from error
    server.close()
    _write(server, path, terminal.edit(text).encode())


def delete_template(call: Call) -> None:
    """Remove a template."""
    server, path = _template(call)
    call.change(server, "DELETE", path)


def _text(server: Server, path: str) -> bytes:
    answer = server.exchange("GET", path, {})
    if answer.status != 200:
        decode(answer)
    return answer.body


def _write(server: Server, path: str, text: bytes) -> None:
    decode(server.exchange("POST", path, {"Content-Type": "application/octet-stream"}, text))
