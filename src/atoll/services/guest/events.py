"""What a running instance is told of itself: changes of its `user.*` configuration and of its devices.

Each instance hears of itself alone. A listener is a bounded queue, as in the hub of the daemon's own events: a guest that does
not read is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from atoll.domain import clock
from atoll.drivers.instance.contract import MachineId
from atoll.services.instances import devlxd
from atoll.services.instances.expand import Expanded

QUEUE = 512
TOLD_PREFIX = "user."


class GuestEventType(StrEnum):
    """Kinds of what is told."""

    CONFIG = "config"
    DEVICE = "device"


@dataclass(frozen=True, slots=True)
class GuestEvent:
    """A change. `metadata` as LXD's: key, old_value and value, or name, action and config."""

    type: GuestEventType
    metadata: Mapping[str, Any]
    timestamp: str = field(default_factory=clock.rfc3339)

    def wire(self) -> dict[str, Any]:
        """As guests get it."""
        return {"timestamp": self.timestamp, "type": self.type.value, "metadata": self.metadata}


class GuestListener:
    """Receives the events of some types of one instance."""

    def __init__(self, machine: MachineId, types: frozenset[GuestEventType]) -> None:
        self.machine = machine
        self.types = types
        self._queue: asyncio.Queue[GuestEvent | None] = asyncio.Queue(QUEUE)

    def offer(self, event: GuestEvent) -> bool:
        """Take the event if it is wanted; False if there is no room for it."""
        if event.type in self.types:
            try:
                self._queue.put_nowait(event)
            except asyncio.QueueFull:
                return False
        return True

    def close(self) -> None:
        """Make `next` return None, after what is queued if there is room."""
        if self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(None)

    async def next(self) -> GuestEvent | None:
        """The next event; None when there will be none any more."""
        return await self._queue.get()


class GuestEvents:
    """The listeners of all instances."""

    def __init__(self) -> None:
        self._listeners: dict[MachineId, set[GuestListener]] = {}

    def listen(self, machine: MachineId, types: frozenset[GuestEventType]) -> GuestListener:
        """A new listener of an instance. Give it back to `forget`."""
        listener = GuestListener(machine, types)
        self._listeners.setdefault(machine, set()).add(listener)
        return listener

    def forget(self, listener: GuestListener) -> None:
        """It is not interested any more."""
        present = self._listeners.get(listener.machine, set())
        present.discard(listener)
        if not present:
            self._listeners.pop(listener.machine, None)

    def changed(self, machine: MachineId, old: Expanded, new: Expanded) -> None:
        """An instance, which may be running, has been brought from one form to another. Costs nothing if it does not listen."""
        if machine not in self._listeners:
            return
        if not devlxd.is_on(new.config):
            self.hang_up(machine)
            return
        for event in differences(old, new):
            for listener in tuple(self._listeners.get(machine, ())):
                if not listener.offer(event):
                    self._drop(listener)

    def hang_up(self, machine: MachineId) -> None:
        """The instance is told nothing any more."""
        for listener in tuple(self._listeners.get(machine, ())):
            self._drop(listener)

    async def close(self) -> None:
        """Nobody is."""
        for machine in tuple(self._listeners):
            self.hang_up(machine)

    def _drop(self, listener: GuestListener) -> None:
        self.forget(listener)
        listener.close()


def differences(old: Expanded, new: Expanded) -> Iterator[GuestEvent]:
    """What an instance is told of a change, in LXD's order: configuration, devices removed, updated, added."""
    for key in sorted({*old.config, *new.config}):
        before, after = old.config.get(key, ""), new.config.get(key, "")
        if key.startswith(TOLD_PREFIX) and before != after:
            yield GuestEvent(GuestEventType.CONFIG, {"key": key, "old_value": before, "value": after})
    for name in old.devices:
        if name not in new.devices:
            yield _device(name, "removed", old.devices[name])
    for name, device in new.devices.items():
        if name in old.devices and old.devices[name] != device:
            yield _device(name, "updated", device)
    for name, device in new.devices.items():
        if name not in old.devices:
            yield _device(name, "added", device)


def _device(name: str, action: str, config: Mapping[str, str]) -> GuestEvent:
    return GuestEvent(GuestEventType.DEVICE, {"name": name, "action": action, "config": dict(config)})
