"""The event hub: what happens is told once and every listener that asked for it hears of it.

A listener is a bounded queue: one that does not read is dropped, so that it can hold neither memory nor the daemon.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import quote_plus

from atoll.domain import clock
from atoll.domain.caller import DAEMON, Caller
from atoll.domain.entities import DEFAULT_PROJECT

QUEUE = 4096


class EventType(StrEnum):
    """LXD's kinds of events."""

    OPERATION = "operation"
    LIFECYCLE = "lifecycle"
    LOGGING = "logging"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `project` is empty for what belongs to none; of the server's own life clients are told as of the
    default project, as LXD does."""

    type: EventType
    metadata: Mapping[str, Any]
    project: str = ""
    timestamp: str = field(default_factory=clock.rfc3339)

    def wire(self, location: str) -> dict[str, Any]:
        """As clients get it."""
        return {
            "type": self.type.value,
            "timestamp": self.timestamp,
            "metadata": self.metadata,
            "location": location,
            "project": self.project or (DEFAULT_PROJECT if self.type is EventType.LIFECYCLE else ""),
        }


class Listener:
    """Receives the events of some types and projects."""

    def __init__(self, types: frozenset[EventType], projects: frozenset[str] | None, *, level: int, only_projects: bool) -> None:
        self.types = types
        self._only_projects = only_projects
        self._projects = projects
        self._level = level
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue(QUEUE)

    def offer(self, event: Event) -> bool:
        """Take the event if it is wanted; False if the listener is too slow and has to go."""
        if event.type not in self.types or not self._wants_project(event.project):
            return True
        if event.type is EventType.LOGGING and event.metadata.get("levelno", logging.INFO) < self._level:
            return True
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            return False
        return True

    def _wants_project(self, project: str) -> bool:
        if not project:
            return not self._only_projects
        return self._projects is None or project in self._projects

    def close(self) -> None:
        """Make `next` return None, after what is queued if there is room."""
        if self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(None)

    async def next(self) -> Event | None:
        """The next event; None when the hub dropped this listener."""
        return await self._queue.get()


class EventHub:
    """Tells events to listeners."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()
        self._watchers: list[Callable[[Event], None]] = []

    def listen(
        self,
        types: frozenset[EventType],
        *,
        projects: frozenset[str] | None = None,
        level: int = logging.INFO,
        only_projects: bool = False,
    ) -> Listener:
        """A new listener; `projects=None` hears of all projects. With `only_projects` it hears nothing of what belongs to no
        project. Give it back to `forget`."""
        listener = Listener(types, projects, level=level, only_projects=only_projects)
        self._listeners.add(listener)
        return listener

    def forget(self, listener: Listener) -> None:
        """It is not interested any more."""
        self._listeners.discard(listener)

    def watch(self, heard: Callable[[Event], None]) -> None:
        """Have a part of the daemon told of each lifecycle event as it happens; it must not block, nor fail."""
        self._watchers.append(heard)

    def unwatch(self, heard: Callable[[Event], None]) -> None:
        """It is not interested any more."""
        self._watchers.remove(heard)

    def publish(self, event: Event) -> None:
        """Tell everybody. Never blocks, never fails."""
        if event.type is EventType.LIFECYCLE:
            for heard in self._watchers:
                heard(event)
        for listener in tuple(self._listeners):
            if not listener.offer(event):
                self.forget(listener)
                listener.close()

    def lifecycle(
        self,
        action: str,
        source: str,
        *,
        project: str = "",
        context: Mapping[str, Any] | None = None,
        caller: Caller = DAEMON,
        is_project: bool = False,
    ) -> None:
        """A lifecycle event: `action` as "instance-created", `source` as the object's URL. `is_project`: the object is the
        project itself, whose URL needs no `project=`."""
        metadata: dict[str, Any] = {"action": action, "source": source if is_project else with_project(source, project)}
        if context:
            metadata["context"] = dict(context)
        if caller is not DAEMON:
            metadata["requestor"] = caller.requestor()
        self.publish(Event(EventType.LIFECYCLE, metadata, project))

    @property
    def wants_logging(self) -> bool:
        """Whether anybody listens to log lines: making them costs."""
        return any(EventType.LOGGING in listener.types for listener in self._listeners)


def with_project(url: str, project: str) -> str:
    """The URL with `project=` unless it is the default project."""
    return url if project in ("", "default") else f"{url}?project={quote_plus(project)}"


class LogForwarder(logging.Handler):
    """Sends log records to the hub, from whatever thread they come."""

    def __init__(self, hub: EventHub, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(logging.DEBUG)
        self._hub = hub
        self._loop = loop

    def emit(self, record: logging.LogRecord) -> None:
        """Called by logging."""
        if not self._hub.wants_logging or self._loop.is_closed():
            return
        metadata = {
            "message": record.getMessage(),
            "level": record.levelname.lower(),
            "levelno": record.levelno,
            "context": {"logger": record.name},
        }
        self._loop.call_soon_threadsafe(self._hub.publish, Event(EventType.LOGGING, metadata))
