"""Commands without a server: a `call` whose requests are answered from a table and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from atoll.cli import arguments, config, table
from atoll.cli.session import Call
from atoll.cli.spec import GLOBAL_FLAGS
from atoll.client.errors import ServerError
from atoll.client.http1 import Response
from atoll.client.server import Answer, Server, ended

NOT_FOUND = ServerError("Not found", status=404)
SUCCESS = {"status_code": 200, "metadata": {}}


class Recorder(Server):
    """Answers by "METHOD path": metadata, an error to raise, or an Operation. What the table has not is not found."""

    def __init__(self, answers: dict[str, Any], *, project: str = "") -> None:
        super().__init__(lambda: pytest.fail("a real connection"), project=project)
        self.answers = answers
        self.requests: list[tuple[str, Any]] = []
        self.interrupts = 0

    def request(self, method: str, path: str, body: object = None, *, etag: str = "") -> Answer:
        self.requests.append((f"{method} {path}", body))
        found = self.answers.get(f"{method} {path}", NOT_FOUND)
        if isinstance(found, Exception):
            raise found
        if isinstance(found, Operation):
            return Answer({"type": "async", "operation": f"/1.0/operations/{method} {path}"}, "")
        return Answer({"type": "sync", "metadata": found}, "etag")

    def exchange(self, method: str, path: str, headers: Any, body: Any = None, *, sink: Any = None) -> Response:
        sent = b"".join(body) if body is not None else None
        self.requests.append((f"{method} {path}", (dict(headers), sent)))
        found = self.answers.get(f"{method} {path}")
        if isinstance(found, Operation):
            return Response(202, {}, f'{{"type":"async","operation":"/1.0/operations/{method} {path}"}}'.encode())
        if found is None:
            return Response(404, {}, b'{"type":"error","error":"Not found","error_code":404}')
        sink(found)
        return Response(200, {}, b"")

    def wait(self, operation: str, *, progress: Any = None, interrupted: Any = None) -> dict[str, Any]:
        for _ in range(self.interrupts):
            interrupted()
        found: Operation = self.answers[operation.removeprefix("/1.0/operations/")]
        return ended(found.end)

    def cancel(self, operation: str) -> None:
        self.request("DELETE", "operation")

    def sent(self, start: str) -> list[tuple[str, Any]]:
        """The requests that begin so."""
        return [(line, body) for line, body in self.requests if line.startswith(start)]


class Operation:
    """An operation that ends at once."""

    def __init__(self, **end: Any) -> None:
        self.end = {**SUCCESS, **end}


Command = Callable[..., Recorder]


@pytest.fixture
def command(tmp_path, monkeypatch) -> Iterator[Command]:
    """Run a command line against a table of answers, in an empty folder; returns what was asked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("atoll.cli.terminal.read_input", lambda: None)

    def run(line: str, answers: dict[str, Any], *, interrupts: int = 0, project: str = "") -> Recorder:
        path, row, words = table.find(line.split())
        flags = arguments.Flags((*row.flags, *GLOBAL_FLAGS))
        given = arguments.parse(words, flags)
        arguments.check_count(row.usage, given)
        server = Recorder(answers, project=project)
        server.interrupts = interrupts
        call = Call(path, given, flags, config.Config({"remotes": {"other": {"addr": "unix:///x"}}}, ""))
        call._servers["local"] = server
        module, _, function = row.run.partition(":")
        getattr(__import__(f"atoll.cli.commands.{module}", fromlist=(function,)), function)(call)
        return server

    yield run
