"""Who hears of what."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from atoll.domain.caller import Caller, Protocol
from atoll.services import events
from atoll.services.events import Event, EventHub, EventType, Listener, LogForwarder

ALL = frozenset(EventType)


async def heard(listener: Listener) -> list[Any]:
    """The messages of what is queued."""
    listener.close()
    found: list[Any] = []
    while (event := await listener.next()) is not None:
        found.append(event.metadata.get("n", event.metadata))
    return found


def lifecycle(number: int, project: str = "") -> Event:
    return Event(EventType.LIFECYCLE, {"n": number}, project)


async def test_types_and_projects_are_chosen() -> None:
    hub = EventHub()
    everything, operations = hub.listen(ALL), hub.listen(frozenset({EventType.OPERATION}))
    some, strict = hub.listen(ALL, projects=frozenset({"p"})), hub.listen(ALL, projects=frozenset({"p"}), only_projects=True)
    for number, project in enumerate(("", "p", "q")):
        hub.publish(lifecycle(number, project))
    assert [await heard(each) for each in (everything, operations, some, strict)] == [[0, 1, 2], [], [0, 1], [1]]


async def test_who_is_forgotten_hears_nothing() -> None:
    hub = EventHub()
    listener = hub.listen(ALL)
    hub.forget(listener)
    hub.forget(listener)
    hub.publish(lifecycle(1))
    assert await heard(listener) == []


async def test_who_does_not_read_is_dropped_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "QUEUE", 3)
    hub = EventHub()
    slow = hub.listen(ALL)
    for number in range(10):
        hub.publish(lifecycle(number))
    later = hub.listen(ALL)
    hub.publish(lifecycle(10))
    assert await heard(later) == [10]
    found = [event.metadata["n"] if (event := await slow.next()) is not None else None for _ in range(3)]
    assert found == [1, 2, None]


async def test_lifecycle_events_say_who_asked() -> None:
    hub = EventHub()
    listener = hub.listen(ALL)
    caller = Caller(Protocol.UNIX, username="root", trusted=True)
    hub.lifecycle("instance-created", "/1.0/instances/c1", project="p&q", context={"a": 1}, caller=caller)
    hub.lifecycle("config-updated", "/1.0")
    assert await heard(listener) == [
        {
            "action": "instance-created",
            "source": "/1.0/instances/c1?project=p%26q",
            "context": {"a": 1},
            "requestor": {"username": "root", "protocol": "unix", "address": ""},
        },
        {"action": "config-updated", "source": "/1.0"},
    ]


def test_the_wire_form() -> None:
    event = lifecycle(1, "p")
    shown = event.wire("none")
    assert set(shown) == {"type", "timestamp", "metadata", "location", "project"}
    assert json.loads(json.dumps(shown))["type"] == "lifecycle"
    assert lifecycle(1).wire("none")["project"] == "default", "what belongs to no project is told as LXD does"
    assert Event(EventType.LOGGING, {}).wire("none")["project"] == ""


async def test_a_projects_own_events_are_its_users() -> None:
    hub = EventHub()
    listener = hub.listen(ALL, projects=frozenset({"p"}), only_projects=True)
    hub.lifecycle("project-updated", "/1.0/projects/p", project="p", is_project=True)
    hub.lifecycle("project-updated", "/1.0/projects/q", project="q", is_project=True)
    assert await heard(listener) == [{"action": "project-updated", "source": "/1.0/projects/p"}]


async def test_log_lines_are_forwarded_from_any_thread_above_the_level_asked_for() -> None:
    hub = EventHub()
    logger = logging.getLogger("atoll.test_events")
    logger.setLevel(logging.DEBUG)
    forwarder = LogForwarder(hub, asyncio.get_running_loop())
    logger.addHandler(forwarder)
    try:
        logger.error("unheard")
        listener = hub.listen(frozenset({EventType.LOGGING}), level=logging.WARNING)
        await asyncio.get_running_loop().run_in_executor(None, logger.warning, "%d bottles", 99)
        logger.info("too low")
        await asyncio.sleep(0.01)
    finally:
        logger.removeHandler(forwarder)
    (found,) = await heard(listener)
    assert (found["message"], found["level"], found["context"]) == ("99 bottles", "warning", {"logger": "atoll.test_events"})
    assert not EventHub().wants_logging


def test_a_part_of_the_daemon_hears_of_what_happens_at_once() -> None:
    hub = EventHub()
    heard: list[str] = []

    def hear(event: Event) -> None:
        heard.append(event.metadata["source"])

    hub.watch(hear)
    hub.lifecycle("instance-created", "/1.0/instances/c1", project="p")
    hub.publish(Event(EventType.LOGGING, {}))
    hub.unwatch(hear)
    hub.lifecycle("instance-deleted", "/1.0/instances/c1", project="p")
    assert heard == ["/1.0/instances/c1?project=p"]
