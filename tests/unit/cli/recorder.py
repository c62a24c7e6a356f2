"""A server for commands that answers from a table."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from atoll.client.errors import ServerError
from atoll.client.http1 import Response
from atoll.client.server import Answer, Server, ended

NOT_FOUND = ServerError("Not found", status=404)


class Operation:
    """An operation that ends at once."""

    def __init__(self, **end: Any) -> None:
        self.end = {"status_code": 200, "metadata": {}, **end}


class Recorder(Server):
    """Answers by "METHOD path": metadata, an error to raise, an Operation, or a list of these to take in turn. What the table
    has not is not found."""

    def __init__(self, answers: dict[str, Any], *, project: str = "", interrupts: int = 0) -> None:
        super().__init__(lambda: pytest.fail("a real connection"), project=project)
        self._answers = answers
        self._interrupts = interrupts
        self._operations: dict[str, Operation] = {}
        self.requests: list[tuple[str, Any]] = []

    def _answer(self, line: str, sent: Any) -> Any:
        self.requests.append((line, sent))
        found = self._answers.get(line, NOT_FOUND)
        found = found.pop(0) if isinstance(found, list) else found
        if isinstance(found, Exception):
            raise found
        if isinstance(found, Operation):
            self._operations[line] = found
            return {"type": "async", "operation": line}
        return {"type": "sync", "metadata": copy.deepcopy(found)}

    def request(self, method: str, path: str, body: object = None, *, etag: str = "") -> Answer:
        return Answer(self._answer(f"{method} {path}", body), "etag")

    def ask(self, method: str, path: str, body: object = None, *, etag: str = "") -> Response:
        found = self._answer(f"{method} {path}", body)
        if isinstance(found["metadata"], bytes):
            return Response(200, {"content-type": "text/plain"}, found["metadata"])
        return Response(200, {"content-type": "application/json"}, json.dumps(found).encode())

    def exchange(self, method: str, path: str, headers: Any, body: Any = None, *, sink: Any = None) -> Response:
        answer = self._answer(f"{method} {path}", (dict(headers), b"".join(body or ())))
        if sink is None:
            return Response(202, {}, f'{{"type":"async","operation":"{answer["operation"]}"}}'.encode())
        sink(answer["metadata"])
        return Response(200, {}, b"")

    def wait(self, operation: str, *, progress: Any = None, interrupted: Any = None) -> dict[str, Any]:
        for _ in range(self._interrupts):
            interrupted()
        return ended(self._operations[operation].end)

    def cancel(self, operation: str) -> None:
        self._answer("DELETE operation", None)

    def sent(self, start: str) -> list[tuple[str, Any]]:
        """The requests that begin so."""
        return [(line, body) for line, body in self.requests if line.startswith(start)]
