"""One server, spoken to in API terms: envelopes, projects, operations."""

from __future__ import annotations

import select

from atoll.client import codec
from atoll.client.errors import OperationFailed, ProtocolError, ServerError
from atoll.client.http1 import Connection, Response

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from atoll.client.http1 import Stream
    from atoll.client.websocket import WebSocket

POLL_SECONDS = 0.1
SUCCESS = 200


class Answer:
    """A decoded envelope. `operation` is the URL of a background operation, empty for a synchronous answer."""

    __slots__ = ("etag", "metadata", "operation", "raw")

    def __init__(self, raw: dict[str, Any], etag: str) -> None:
        self.raw = raw
        self.metadata: Any = raw.get("metadata")
        self.operation: str = raw.get("operation") or "" if raw.get("type") == "async" else ""
        self.etag = etag


class Server:
    """A server, over one connection that is opened on first use and kept.

    connect: opens a stream; called again for each websocket.
    project, target: added to every request when not empty.
    trace: told of each request when debugging.
    """

    read_only = False
    """Whether it is an image server, which has no API of its own."""

    def __init__(
        self,
        connect: Callable[[], Stream],
        *,
        project: str = "",
        target: str = "",
        trace: Callable[[str], None] | None = None,
    ) -> None:
        self._connect = connect
        self._connection: Connection | None = None
        self._trace = trace
        self.project = project
        self.target = target

    def in_project(self, project: str) -> Server:
        """The same server, by a connection of its own, in another project."""
        return Server(self._connect, project=project, target=self.target, trace=self._trace)

    def close(self) -> None:
        """Drop the connection; the next request opens another. Also for use before a long pause."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # requests

    def get(self, path: str) -> Any:
        """The metadata of a GET."""
        return self.request("GET", path).metadata

    def fetch(self, path: str) -> Answer:
        """A GET with its ETag, for a later `change`."""
        return self.request("GET", path)

    def request(self, method: str, path: str, body: object = None, *, etag: str = "") -> Answer:
        """Send a request and decode its envelope; ServerError when the server refuses."""
        return decode(self.ask(method, path, body, etag=etag))

    def ask(self, method: str, path: str, body: object = None, *, etag: str = "") -> Response:
        """Send a request; its answer as it is, which may be an error."""
        headers = {"If-Match": etag} if etag else {}
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = codec.dumps(body).encode()
            self._note(codec.dumps(body))
        return self.exchange(method, path, headers, data)

    def change(self, method: str, path: str, body: object = None, *, etag: str = "") -> Answer:
        """`request`, and when it started an operation, wait for its end: `metadata` is then the operation's."""
        answer = self.request(method, path, body, etag=etag)
        if answer.operation:
            answer.metadata = self.wait(answer.operation)
        return answer

    def exchange(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Any = None,
        *,
        sink: Callable[[bytes], object] | None = None,
        choose: Callable[[Mapping[str, str]], Callable[[bytes], object] | None] | None = None,
    ) -> Response:
        """One raw request and its answer; see `Connection.receive`."""
        self.send(method, path, headers, body)
        return self.receive(sink=sink, choose=choose)

    def send(self, method: str, path: str, headers: Mapping[str, str], body: Any = None) -> None:
        """Send a request whose answer `receive` reads later."""
        if self._connection is None:
            self._connection = Connection(self._connect())
        target = self.scoped(path)
        self._note(f"{method} {target}")
        try:
            self._connection.send(method, target, headers, body)
        except BaseException:
            self.close()  # the server has a part of the request, and waits for the rest
            raise

    def receive(
        self,
        *,
        sink: Callable[[bytes], object] | None = None,
        choose: Callable[[Mapping[str, str]], Callable[[bytes], object] | None] | None = None,
    ) -> Response:
        """The answer to the last `send`."""
        if self._connection is None:
            raise ProtocolError("The connection was closed before the answer")
        try:
            answer = self._connection.receive(sink=sink, choose=choose)
        except BaseException:
            self.close()  # whatever it was, the rest of the answer may still be on its way
            raise
        if answer.headers.get("connection", "").lower() == "close":
            self.close()
        return answer

    def fileno(self) -> int:
        """The connection's descriptor while an answer is awaited; -1 without a connection."""
        return -1 if self._connection is None else self._connection.fileno()

    def websocket(self, path: str) -> WebSocket:
        """A websocket whose upgrade has been asked for, on a connection of its own."""
        from atoll.client.websocket import WebSocket

        self._note(f"websocket {path}")
        socket = WebSocket(Connection(self._connect()))
        socket.open(self.scoped(path))
        return socket

    def upgrade(self, path: str, protocol: str) -> Stream:
        """A connection of its own that speaks another protocol from now on; ServerError when the server refuses.

        The client is the one to speak first there.
        """
        self._note(f"upgrade to {protocol} {path}")
        connection = Connection(self._connect())
        try:
            connection.send("GET", self.scoped(path), {"Connection": "Upgrade", "Upgrade": protocol})
            answer = connection.receive()
            if answer.status != 101:
                decode(answer)
                raise ProtocolError(f"The server does not speak {protocol} (HTTP status {answer.status})")
        except BaseException:
            connection.close()
            raise
        return connection.stream

    def scoped(self, path: str) -> str:
        """The path with project and target added, where it does not name them itself."""
        from atoll.client.address import quote

        for name, value in (("project", self.project), ("target", self.target)):
            if value and f"{name}=" not in path:
                path += ("&" if "?" in path else "?") + f"{name}={quote(value)}"
        return path

    # operations

    def wait(
        self,
        operation: str,
        *,
        progress: Callable[[dict[str, Any]], None] | None = None,
        interrupted: Callable[[], None] | None = None,
    ) -> dict[str, Any]:
        """Wait for an operation's end and return it; OperationFailed when it did not succeed.

        progress: called with the operation's metadata every now and then.
        interrupted: called in place of KeyboardInterrupt; the wait goes on unless it raises.
        """
        self.send("GET", operation.partition("?")[0] + "/wait", {})
        try:
            self._await(operation, progress, interrupted)
        except BaseException:
            self.close()  # the answer is still to come, and would be taken for that to the next request
            raise
        result: dict[str, Any] = decode(self.receive()).metadata
        return ended(result)

    def cancel(self, operation: str) -> None:
        """Ask the server, on another connection, to cancel an operation; ServerError when it refuses."""
        other = Server(self._connect, project=self.project)
        try:
            other.request("DELETE", operation)
        finally:
            other.close()

    def _await(
        self,
        operation: str,
        progress: Callable[[dict[str, Any]], None] | None,
        interrupted: Callable[[], None] | None,
    ) -> None:
        """Return when the answer to `wait` arrives."""
        while True:
            try:
                return self._watch(operation, progress)
            except KeyboardInterrupt:
                if interrupted is None:
                    raise
                interrupted()

    def _watch(self, operation: str, progress: Callable[[dict[str, Any]], None] | None) -> None:
        """Report metadata, polled on a second connection, until the answer to `wait` arrives on the first."""
        if progress is None:
            select.select([self.fileno()], [], [])
            return
        other = Server(self._connect, project=self.project)
        try:
            while not select.select([self.fileno()], [], [], POLL_SECONDS)[0]:
                progress(other.get(operation).get("metadata") or {})
        finally:
            other.close()

    def _note(self, text: str) -> None:
        if self._trace is not None:
            self._trace(text)


def decode(answer: Response) -> Answer:
    """The envelope of an answer; ServerError for an error, ProtocolError when there is no envelope."""
    try:
        raw = codec.loads(answer.body.decode())
    except ValueError as error:
        raise ProtocolError(f"The server's answer is not JSON (HTTP status {answer.status})") from error
    if not isinstance(raw, dict):
        raise ProtocolError("The server's answer is no envelope")
    if raw.get("type") == "error":
        raise ServerError(raw.get("error") or "unknown error", status=int(raw.get("error_code") or answer.status))
    return Answer(raw, answer.headers.get("etag", ""))


def ended(operation: dict[str, Any]) -> dict[str, Any]:
    """The operation itself when it succeeded; OperationFailed otherwise."""
    if operation["status_code"] != SUCCESS:
        message = operation.get("err") or f"Operation {operation.get('status', 'failed').lower()}"
        raise OperationFailed(message, status=operation["status_code"])
    return operation
