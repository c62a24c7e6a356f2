"""Operations: background work that clients can watch, wait for and cancel.

An operation is declared as data (OperationSpec) and run by the registry: it gets a task of its own that outlives the request,
its changes are told as events, its failure becomes `err`. Three classes, as in LXD: tasks do their work; websockets wait for
their connections by secrets, and do it then; tokens only carry a secret until they are used, cancelled or expired.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets as token_source
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any

from atoll.domain import clock
from atoll.domain.caller import DAEMON, Caller
from atoll.domain.errors import AtollError, BadRequest, Forbidden, NotFound
from atoll.domain.status import OperationStatus
from atoll.services.events import Event, EventHub, EventType

log = logging.getLogger(__name__)

KEEP_SECONDS = 5.0
"""How long an ended operation can still be asked for."""

_CANCELLED = "Operation was cancelled"


class OperationClass(StrEnum):
    """LXD's three classes."""

    TASK = "task"
    WEBSOCKET = "websocket"
    TOKEN = "token"


Work = Callable[["Operation"], Awaitable[Mapping[str, Any] | None]]
"""Does the operation's work; what it returns is merged into the metadata."""

Connect = Callable[[str, Any], Awaitable[None]]
"""Serves one websocket: (name of the descriptor, the websocket). Returns when that connection is over."""


@dataclass(frozen=True, slots=True)
class OperationSpec:
    """What is known of an operation before it starts. `resources` maps a kind to URLs of what it works on."""

    description: str
    work: Work | None = None
    cls: OperationClass = OperationClass.TASK
    project: str = "default"
    resources: Mapping[str, list[str]] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    caller: Caller | None = None
    cancellable: bool = False
    sockets: Mapping[str, str] = field(default_factory=dict)  # descriptor name -> secret
    connect: Connect | None = None
    private: Mapping[str, Any] = field(default_factory=dict)  # metadata that only its creator gets, e.g. a token's secret
    seconds: float = 0.0  # after which a token is worth nothing any more; 0: never
    largest_message: int = 0  # bytes of a message of a websocket; 0: no bound but for those of control


class Operation:
    """One operation. Changed only by the registry and by its own work through `progress` and `update`."""

    def __init__(self, spec: OperationSpec, hub: EventHub) -> None:
        self.id = str(uuid.uuid4())
        self.spec = spec
        self.created_at = self.updated_at = clock.rfc3339()
        self.status = OperationStatus.PENDING
        self.metadata: dict[str, Any] = dict(spec.metadata)
        self.error = ""
        self._hub = hub
        self._ended = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"/1.0/operations/{self.id}"

    @property
    def may_cancel(self) -> bool:
        """Whether `cancel` would be accepted now."""
        return (self.spec.cancellable or self.spec.cls is OperationClass.TOKEN) and not self.status.is_final

    def wire(self, *, secrets: bool = False) -> dict[str, Any]:
        """As clients get it. Secrets only go to its creator (security invariant I11)."""
        metadata: dict[str, Any] = dict(self.metadata)
        if secrets:
            metadata.update(self.spec.private)
        if secrets and self.spec.sockets and not self.spec.private:
            metadata["fds"] = dict(self.spec.sockets)
        return {
            "id": self.id,
            "class": self.spec.cls.value,
            "description": self.spec.description,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "status": self.status.value,
            "status_code": self.status.code,
            "resources": dict(self.spec.resources) or None,
            "metadata": metadata or None,
            "may_cancel": self.may_cancel,
            "err": self.error,
            "location": "none",
        }

    def progress(self, key: str, text: str, **numbers: int) -> None:
        """Say how far it is: `key` as "download_progress", text as "rootfs: 34% (2.1MB/s)"; told when it changed."""
        if self.metadata.get(key) != text:
            self.update(
                {key: text, **({"progress": {"stage": key, **{k: str(v) for k, v in numbers.items()}}} if numbers else {})}
            )

    def update(self, metadata: Mapping[str, Any]) -> None:
        """Merge into the metadata and tell it; what comes after the end is too late."""
        if self.status.is_final:
            return
        self.metadata.update(metadata)
        self._changed()

    def set_status(self, status: OperationStatus, *, error: str = "") -> None:
        """For the registry."""
        self.status, self.error = status, error
        self._changed()
        if status.is_final:
            self._ended.set()

    def when_done(self, call: Callable[[], object]) -> None:
        """Call it when its work is over, however that ends."""
        assert self.task is not None  # of one with work
        self.task.add_done_callback(lambda _: call())

    async def wait(self, timeout: float | None = None) -> bool:
        """Until it ended, at most `timeout` seconds; whether it did."""
        try:
            async with asyncio.timeout(timeout):
                await self._ended.wait()
        except TimeoutError:
            return False
        return True

    def _changed(self) -> None:
        self.updated_at = clock.rfc3339()
        self._hub.publish(Event(EventType.OPERATION, self.wire(), self.spec.project))


class OperationRegistry:
    """Starts operations and finds them again."""

    def __init__(self, hub: EventHub) -> None:
        self._hub = hub
        self._operations: dict[str, Operation] = {}

    def start(self, spec: OperationSpec) -> Operation:
        """Make it and begin its work. A websocket operation begins too: its work waits for the connections itself."""
        operation = Operation(spec, self._hub)
        self._operations[operation.id] = operation
        operation.set_status(OperationStatus.PENDING if spec.work is None else OperationStatus.RUNNING)
        if spec.cls is OperationClass.TOKEN:
            operation.set_status(OperationStatus.RUNNING)
        if spec.seconds:
            expire = partial(self._end, operation, OperationStatus.CANCELLED, "The token expired")
            asyncio.get_running_loop().call_later(spec.seconds, expire)
        if spec.work is not None:
            operation.task = asyncio.create_task(self._run(operation, spec.work), name=f"operation {operation.id}")
            # A task that is cancelled before its first step never enters `_run`.
            operation.task.add_done_callback(lambda _: self._end(operation, OperationStatus.CANCELLED, _CANCELLED))
        return operation

    async def _run(self, operation: Operation, work: Work) -> None:
        try:
            result = await work(operation)
        except asyncio.CancelledError:
            self._end(operation, OperationStatus.CANCELLED, _CANCELLED)
        except AtollError as error:
            self._end(operation, OperationStatus.FAILURE, str(error))
        except Exception as error:  # whatever a defect of ours raises ends as the operation's failure, with a trace in the log
            log.exception("Operation %s (%s) failed", operation.id, operation.spec.description)
            self._end(operation, OperationStatus.FAILURE, f"{type(error).__name__}: {error}")
        else:
            operation.metadata.update(result or {})
            self._end(operation, OperationStatus.SUCCESS)

    def _end(self, operation: Operation, status: OperationStatus, error: str = "") -> None:
        if operation.status.is_final:
            return
        operation.set_status(status, error=error)
        asyncio.get_running_loop().call_later(KEEP_SECONDS, self._operations.pop, operation.id, None)

    def find(self, operation_id: str) -> Operation:
        """NotFound if there is none, or none any more."""
        operation = self._operations.get(operation_id)
        if operation is None:
            raise NotFound("Operation not found")
        return operation

    def find_all(self, project: str | None = None) -> list[Operation]:
        """All of a project (and those that belong to none), or of all projects."""
        return [o for o in self._operations.values() if project is None or o.spec.project in ("", project)]

    def cancel(self, operation: Operation, *, caller: Caller = DAEMON) -> None:
        """Ask it to stop. BadRequest if it cannot be cancelled, or is asked already: its undo is not to be disturbed."""
        if not operation.may_cancel:
            raise BadRequest("This operation can't be cancelled")
        if operation.status is OperationStatus.CANCELLING:
            raise BadRequest("This operation is being cancelled already")
        self._hub.lifecycle("operation-cancelled", operation.url, project=operation.spec.project, caller=caller)
        if operation.task is None:
            self._end(operation, OperationStatus.CANCELLED)
            return
        operation.set_status(OperationStatus.CANCELLING)
        operation.task.cancel()

    def complete_token(self, operation: Operation) -> bool:
        """The token is used; False if it was before, or is worth nothing any more."""
        is_open = not operation.status.is_final
        self._end(operation, OperationStatus.SUCCESS)
        return is_open

    def descriptor(self, operation: Operation, secret: str) -> str:
        """Which websocket a secret is for. Forbidden for a wrong one, compared in constant time."""
        if operation.spec.cls is not OperationClass.WEBSOCKET:
            raise BadRequest("Only websocket operations can be connected to")
        for name, expected in operation.spec.sockets.items():
            if hmac.compare_digest(expected.encode(), secret.encode()):
                return name
        raise Forbidden("Not authorized")

    def check_watcher(self, operation: Operation, secret: str) -> None:
        """Forbidden unless the secret is one that its creator was given, of a websocket or of the whole."""
        known = [*operation.spec.sockets.values(), str(operation.spec.private.get("secret", ""))]
        if not any(each and hmac.compare_digest(each.encode(), secret.encode(errors="replace")) for each in known):
            raise Forbidden("Not authorized")

    @property
    def running(self) -> list[Operation]:
        """Those with work under way."""
        return [o for o in self._operations.values() if o.task is not None and not o.status.is_final]

    async def drain(self, seconds: float) -> None:
        """Before the daemon ends: let work finish for a while, then cancel it and wait for its undo. What lives by a client's
        websockets ends at once: they end with the daemon."""
        for operation in self.running:
            if operation.spec.cls is OperationClass.WEBSOCKET and operation.task is not None:
                operation.task.cancel()
        tasks = [o.task for o in self.running if o.task is not None]
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=seconds)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=30)


def new_secret() -> str:
    """An unguessable secret of 256 bits."""
    return token_source.token_hex(32)
