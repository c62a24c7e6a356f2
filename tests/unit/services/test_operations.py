"""Operations from start to end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from atoll.domain.errors import BadRequest, Conflict, Forbidden, NotFound
from atoll.domain.status import OperationStatus
from atoll.domain.undo import Reverter
from atoll.services import operations
from atoll.services.events import EventHub, EventType
from atoll.services.operations import Operation, OperationClass, OperationRegistry, OperationSpec

Work = Callable[[Operation], Awaitable[Mapping[str, Any] | None]]


@pytest.fixture
def hub() -> EventHub:
    return EventHub()


@pytest.fixture
def registry(hub: EventHub) -> OperationRegistry:
    return OperationRegistry(hub)


def task(work: Work, **more: Any) -> OperationSpec:
    return OperationSpec("Testing", work, **more)


async def sleep(_: Operation) -> None:
    await asyncio.sleep(60)


async def test_work_ends_in_success_with_its_result(registry: OperationRegistry, hub: EventHub) -> None:
    listener = hub.listen(frozenset({EventType.OPERATION}))

    async def work(operation: Operation) -> dict[str, Any]:
        operation.progress("download_progress", "rootfs: 10%", percent=10)
        operation.progress("download_progress", "rootfs: 10%", percent=10)
        operation.update({"more": 1})
        return {"fingerprint": "x"}

    operation = registry.start(task(work, metadata={"given": True}, project="p", resources={"instances": ["/1.0/instances/c1"]}))
    assert registry.find(operation.id) is operation
    assert operation.status is OperationStatus.RUNNING
    assert registry.running == [operation]
    assert await operation.wait(30)
    shown = operation.wire()
    assert (shown["status"], shown["status_code"], shown["err"], shown["class"]) == ("Success", 200, "", "task")
    assert shown["metadata"] == {
        "given": True,
        "download_progress": "rootfs: 10%",
        "progress": {"stage": "download_progress", "percent": "10"},
        "more": 1,
        "fingerprint": "x",
    }
    assert registry.running == []
    told = []
    listener.close()
    while (event := await listener.next()) is not None:
        told.append((event.metadata["status"], event.project))
    assert told == [("Running", "p")] * 3 + [("Success", "p")]


async def test_failures_are_told(registry: OperationRegistry, caplog: pytest.LogCaptureFixture) -> None:
    async def known(_: Operation) -> None:
        raise Conflict("It is taken", hint="take another")

    async def unknown(_: Operation) -> None:
        raise KeyError("x")

    first, second = registry.start(task(known)), registry.start(task(unknown))
    await asyncio.gather(first.wait(), second.wait())
    assert (first.status, first.error) == (OperationStatus.FAILURE, "It is taken (take another)")
    assert (second.status, second.error) == (OperationStatus.FAILURE, "KeyError: 'x'")
    assert "failed" in caplog.text and "It is taken" not in caplog.text


async def test_nothing_changes_after_the_end(registry: OperationRegistry) -> None:
    async def work(_: Operation) -> None:
        return None

    operation = registry.start(task(work))
    await operation.wait()
    shown = operation.wire()
    operation.progress("late", "1%")
    registry.complete_token(operation)
    assert operation.wire() == shown


async def test_cancelling_waits_for_the_undo_and_asks_once(registry: OperationRegistry) -> None:
    begun, undone = asyncio.Event(), asyncio.Event()

    async def undo_slowly() -> None:
        await asyncio.sleep(0.02)
        undone.set()

    async def work(operation: Operation) -> None:
        async with Reverter("test") as undo:
            undo.add(undo_slowly)
            begun.set()
            await sleep(operation)

    operation = registry.start(task(work, cancellable=True))
    await begun.wait()
    registry.cancel(operation)
    assert operation.status is OperationStatus.CANCELLING
    with pytest.raises(BadRequest, match="already"):
        registry.cancel(operation)
    assert await operation.wait(30)
    assert undone.is_set()
    assert (operation.status, operation.error) == (OperationStatus.CANCELLED, "Operation was cancelled")
    with pytest.raises(BadRequest):
        registry.cancel(operation)


async def test_cancelling_before_the_first_step(registry: OperationRegistry) -> None:
    operation = registry.start(task(sleep, cancellable=True))
    registry.cancel(operation)
    assert await operation.wait(30)
    assert operation.status is OperationStatus.CANCELLED


async def test_not_everything_can_be_cancelled(registry: OperationRegistry) -> None:
    operation = registry.start(task(sleep))
    assert not operation.wire()["may_cancel"]
    with pytest.raises(BadRequest):
        registry.cancel(operation)
    await registry.drain(0)
    assert operation.status is OperationStatus.CANCELLED


async def test_waiting_has_an_end(registry: OperationRegistry) -> None:
    operation = registry.start(task(sleep))
    assert not await operation.wait(0.01)
    assert operation.status is OperationStatus.RUNNING
    await registry.drain(0)


async def test_drain_lets_short_work_end_by_itself(registry: OperationRegistry) -> None:
    async def short(_: Operation) -> None:
        await asyncio.sleep(0.02)

    quick = registry.start(task(short))
    await registry.drain(30)
    assert quick.status is OperationStatus.SUCCESS
    long = registry.start(task(sleep))
    await registry.drain(0.02)
    assert long.status is OperationStatus.CANCELLED
    await registry.drain(0)


async def test_ended_operations_are_forgotten_after_a_while(
    registry: OperationRegistry, monkeypatch: pytest.MonkeyPatch, until: Any
) -> None:
    async def work(_: Operation) -> None:
        return None

    kept = registry.start(task(work, project="p"))
    await kept.wait()
    assert registry.find_all("p") == registry.find_all() == [kept]
    assert registry.find_all("q") == []
    monkeypatch.setattr(operations, "KEEP_SECONDS", 0.02)
    forgotten = registry.start(task(work, project="p"))
    await forgotten.wait()
    await until(lambda: registry.find_all("p") == [kept])
    with pytest.raises(NotFound):
        registry.find(forgotten.id)


async def test_tokens_run_until_they_are_used_or_cancelled(registry: OperationRegistry) -> None:
    spec = OperationSpec("Adding", cls=OperationClass.TOKEN, private={"secret": "s"})
    used, cancelled = registry.start(spec), registry.start(spec)
    assert used.wire()["status"] == "Running"
    assert "secret" not in str(used.wire())
    assert used.wire(secrets=True)["metadata"]["secret"] == "s"
    assert registry.running == []
    registry.complete_token(used)
    registry.cancel(cancelled)
    assert (used.status, cancelled.status) == (OperationStatus.SUCCESS, OperationStatus.CANCELLED)


async def test_a_token_is_used_once_and_expires(registry: OperationRegistry) -> None:
    spec = OperationSpec("Adding", cls=OperationClass.TOKEN, private={"secret": "s"}, seconds=0.02)
    used, late = registry.start(spec), registry.start(spec)
    assert [registry.complete_token(used), registry.complete_token(used)] == [True, False]
    assert await late.wait(30)
    assert (used.status, late.status, late.error) == (OperationStatus.SUCCESS, OperationStatus.CANCELLED, "The token expired")
    assert registry.complete_token(late) is False


async def test_websockets_are_opened_by_secret(registry: OperationRegistry) -> None:
    secrets = {"0": operations.new_secret(), "control": operations.new_secret()}
    operation = registry.start(task(sleep, cls=OperationClass.WEBSOCKET, sockets=secrets))
    assert len(set(secrets.values())) == 2 and all(len(secret) == 64 for secret in secrets.values())
    assert operation.wire()["metadata"] is None
    assert operation.wire(secrets=True)["metadata"] == {"fds": secrets}
    assert registry.descriptor(operation, secrets["control"]) == "control"
    for wrong in ("", "x", "ä", secrets["0"][:-1]):
        with pytest.raises(Forbidden):
            registry.descriptor(operation, wrong)
    other = registry.start(task(sleep))
    with pytest.raises(BadRequest):
        registry.descriptor(other, secrets["0"])
    await registry.drain(0)
