"""/1.0/operations and /1.0/events."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec
from aiohttp import web

from atoll.api import response, websocket
from atoll.api.request import Request
from atoll.api.route import Access, Route
from atoll.domain.errors import BadRequest, Forbidden, NotFound
from atoll.services.events import EventHub, EventType, Listener
from atoll.services.operations import Operation, OperationRegistry

LOCATION = "none"
FOREVER = -1


class OperationRoutes:
    """Routes of operations."""

    def __init__(self, operations: OperationRegistry, hub: EventHub) -> None:
        self._operations = operations
        self._hub = hub

    def table(self) -> Sequence[Route]:
        one = "/1.0/operations/{id}"
        return (
            Route("GET", "/1.0/operations", self.list_, Access.PROJECT, "List operations", result=dict[str, list[str]]),
            Route("GET", one, self.get, Access.TRUSTED, "Get an operation", result=dict),
            Route("DELETE", one, self.cancel, Access.TRUSTED, "Cancel an operation"),
            Route("GET", f"{one}/wait", self.wait, Access.PUBLIC, "Wait for an operation", result=dict),
            Route("GET", f"{one}/websocket", self.websocket, Access.PUBLIC, "Connect to a websocket operation", result=bytes),
            Route("GET", "/1.0/events", self.events, Access.TRUSTED, "Listen to events", result=bytes),
        )

    async def list_(self, request: Request) -> web.StreamResponse:
        """By status."""
        found = [o for o in self._operations.find_all(request.scope) if self._may_see(request, o)]
        grouped: dict[str, list[object]] = {}
        for operation in found:
            item = operation.url if request.recursion == 0 else operation.wire()
            grouped.setdefault(operation.status.value.lower(), []).append(item)
        return response.sync(grouped)

    async def get(self, request: Request) -> web.StreamResponse:
        return response.sync(self._find(request).wire())

    async def cancel(self, request: Request) -> web.StreamResponse:
        """Ask it to stop."""
        self._operations.cancel(self._find(request), caller=request.caller)
        return response.empty()

    async def wait(self, request: Request) -> web.StreamResponse:
        """Until it ended, or for `timeout` seconds; a stranger needs one of its secrets."""
        operation = self._operations.find(request.path("id"))
        if not request.caller.trusted:
            self._operations.check_watcher(operation, request.query("secret"))
        elif not self._may_see(request, operation):
            raise NotFound("Operation not found")
        seconds = request.number("timeout", FOREVER)
        await operation.wait(None if seconds < 0 else seconds)
        return response.sync(operation.wire())

    async def websocket(self, request: Request) -> web.StreamResponse:
        """One of its websockets, named by the secret."""
        operation = self._operations.find(request.path("id"))
        name = self._operations.descriptor(operation, request.query("secret"))
        connect = operation.spec.connect
        if connect is None:
            raise BadRequest("This operation has no websockets")
        largest = operation.spec.largest_message or (websocket.MAX_CONTROL if name == "control" else 0)
        socket = await websocket.accept(request.raw, largest=largest)
        await connect(name, websocket.WebSocket(socket))
        return socket

    def _find(self, request: Request) -> Operation:
        operation = self._operations.find(request.path("id"))
        if not self._may_see(request, operation):
            raise NotFound("Operation not found")
        return operation

    @staticmethod
    def _may_see(request: Request, operation: Operation) -> bool:
        project = operation.spec.project
        return request.caller.may_use(project) if project else request.caller.is_admin

    # --- events --------------------------------------------------------------------------------------------------------

    async def events(self, request: Request) -> web.StreamResponse:
        """A websocket that gets them as they happen."""
        listener = self._hub.listen(
            _types(request),
            projects=_projects(request),
            level=logging.DEBUG if request.flag("debug") else logging.INFO,
            only_projects=not request.caller.is_admin,
        )
        try:
            socket = await websocket.accept(request.raw, largest=websocket.MAX_CONTROL)
            await websocket.while_open(socket, _send(listener, socket))
            return socket
        finally:
            self._hub.forget(listener)


async def _send(listener: Listener, socket: web.WebSocketResponse) -> None:
    encode = msgspec.json.encode
    while (event := await listener.next()) is not None:
        await socket.send_str(encode(event.wire(LOCATION)).decode())
    await socket.close(message=b"too slow")


def _types(request: Request) -> frozenset[EventType]:
    """What the client wants to hear of; log lines and the daemon's own things only go to administrators."""
    text = request.query("type")
    allowed = set(EventType) if request.caller.is_admin else {EventType.OPERATION, EventType.LIFECYCLE}
    if not text:
        return frozenset(allowed)
    try:
        wanted = {EventType(word) for word in text.split(",")}
    except ValueError as error:
        raise BadRequest(f"type: unknown event type in {text[:60]!r}") from error
    if wanted - allowed:
        raise Forbidden("Not authorized")
    return frozenset(wanted)


def _projects(request: Request) -> frozenset[str] | None:
    if not request.flag("all-projects"):
        return frozenset({request.project})
    if request.query("project"):
        raise BadRequest("Cannot specify a project when requesting all projects")
    return None if request.caller.is_admin else request.caller.projects
