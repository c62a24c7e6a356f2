"""`file delete|edit`, and what all commands of files have in common: a place in an instance, and getting a file of it."""

from __future__ import annotations

from atoll.cli import terminal
from atoll.cli.errors import CommandError
from atoll.client.address import url
from atoll.client.server import decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from atoll.cli.session import Call
    from atoll.client.http1 import Response
    from atoll.client.server import Server

MOST_LINKS = 40


class Place:
    """A path in an instance."""

    __slots__ = ("instance", "path", "server")

    def __init__(self, server: Server, instance: str, path: str) -> None:
        self.server = server
        self.instance = instance
        self.path = path

    def at(self, path: str) -> Place:
        """Another path in the same instance."""
        return Place(self.server, self.instance, path)

    def below(self, name: str) -> Place:
        """What has that name in this directory."""
        return self.at(f"{self.path.rstrip('/')}/{name}")

    @property
    def name(self) -> str:
        """The path's last part."""
        return self.path.rstrip("/").rpartition("/")[2]

    @property
    def url(self) -> str:
        """Its address in the API."""
        return url("instances", self.instance, "files", path=self.path)

    def get(self, choose: Callable[[Mapping[str, str]], Callable[[bytes], object] | None] | None = None) -> Response:
        """The file's headers and content; `choose` gets the headers first and may return where the content goes."""
        answer = self.server.exchange("GET", self.url, {}, choose=choose)
        if answer.status != 200:
            decode(answer)
        return answer

    def post(self, headers: dict[str, str], body: bytes | Iterable[bytes] = b"") -> None:
        """Make or write the file."""
        decode(self.server.exchange("POST", self.url, headers, body))


def place(call: Call, text: str, what: str) -> Place:
    """ "[remote:]instance/path"; `what` is the thing's name in the error for a text without a path."""
    server, name = call.resolve(text)
    instance, slash, path = name.partition("/")
    if not slash or not instance:
        raise CommandError(f"Invalid {what} {text}")
    return Place(server, instance, f"/{path}" if path else "")


def kind(headers: Mapping[str, str]) -> str:
    """file, directory or symlink."""
    return headers.get("x-lxd-type", "file")


def text_of(answer: Response) -> str:
    """Where a link points."""
    return answer.body.decode(errors="surrogateescape")


def delete(call: Call) -> None:
    """Delete files and empty directories."""
    for word in call.arguments:
        target = place(call, word, "path")
        call.change(target.server, "DELETE", target.url)


def edit(call: Call) -> None:
    """Change a file in an editor, or replace its content by standard input. It keeps its owner and mode."""
    from atoll.cli.commands import transfer

    target = place(call, call.arguments[0], "path")
    if not terminal.is_terminal(0):
        target.post(_WRITE, transfer.contents("/dev/stdin"))
        return
    import tempfile

    with tempfile.TemporaryDirectory(prefix="atoll_file_edit_") as folder:
        local = f"{folder}/{target.name}"
        with open(local, "xb") as file:
            followed(target, file.write)
        target.server.close()
        terminal.edit_file(local)
        target.post(_WRITE, transfer.contents(local))


_WRITE = {"X-LXD-type": "file", "X-LXD-write": "overwrite"}


def followed(source: Place, write: Callable[[bytes], object]) -> None:
    """The content of a file, or of the file that a link leads to."""

    def choose(headers: Mapping[str, str]) -> Callable[[bytes], object] | None:
        return write if kind(headers) == "file" else None

    for _ in range(MOST_LINKS):
        answer = source.get(choose)
        if kind(answer.headers) == "directory":
            raise CommandError("Can't pull a directory without --recursive")
        if kind(answer.headers) != "symlink":
            return
        source = source.at(text_of(answer))
    raise CommandError(f"Too many levels of symbolic links: {source.path}")
