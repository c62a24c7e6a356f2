"""Ten thousand instances: lists stay quick, and take the same few statements as for one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from atoll.db import engine

MANY = 10_000
HUNDREDS = 300


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The SELECTs that are made for requests, and not for what the daemon does by itself meanwhile."""
    statements: list[str] = []
    one, several = engine.Transaction.query, engine.Transaction.queries

    def note(*sql: str) -> None:
        task = asyncio.current_task()
        if task is not None and task.get_coro().__qualname__.startswith("RequestHandler."):
            statements.extend(sql)

    async def query(self: engine.Transaction, sql: str, *parameters: Any) -> Any:
        note(sql)
        return await one(self, sql, *parameters)

    async def queries(self: engine.Transaction, *each: Any) -> Any:
        note(*(sql for sql, *_ in each))
        return await several(self, *each)

    with monkeypatch.context() as patch:
        patch.setattr(engine.Transaction, "query", query)
        patch.setattr(engine.Transaction, "queries", queries)
        yield statements


FILL = (
    """WITH RECURSIVE numbers(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < ?)
    INSERT INTO instances (node_id, project_id, name, type, architecture, ephemeral, stateful, description, created_at,
    last_used_at, phase) SELECT node_id, project_id, 'c' || number, type, architecture, ephemeral, stateful, description,
    created_at, last_used_at, phase FROM instances, numbers WHERE name = 'c0'""",
    """INSERT INTO instances_config (instance_id, key, value) SELECT new.id, key, value FROM instances new, instances_config
    JOIN instances old ON old.id = instance_id WHERE old.name = 'c0' AND new.name LIKE 'c%' AND new.id != old.id""",
    """INSERT INTO instances_profiles (instance_id, profile_id, apply_order) SELECT new.id, profile_id, apply_order
    FROM instances new, instances_profiles JOIN instances old ON old.id = instance_id
    WHERE old.name = 'c0' AND new.name LIKE 'c%' AND new.id != old.id""",
)


async def fill(app: Any, count: int) -> None:
    """Instances as `POST /1.0/instances` leaves the first, at once, so that the test is quick."""
    await app.create("c0", config={"user.number": "0"})
    async with app.daemon.global_db.write() as tx:
        await tx.execute(FILL[0], count - 1)
        await tx.execute(FILL[1])
        await tx.execute(FILL[2])


async def statements_of(app: Any, monkeypatch: pytest.MonkeyPatch, path: str) -> tuple[int, float, int]:
    """(statements, seconds of processor time, objects) of a GET."""
    with counted(monkeypatch) as statements:
        began = time.process_time()
        found = await app.get(path)
        return len(statements), time.process_time() - began, len(found)


LIMITS = {0: 1.0, 1: 3.0, 2: 5.0}
"""Seconds of processor time, which does not depend on what else the machine does; several times what a small one takes."""


async def test_lists(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = {recursion: f"/1.0/instances?recursion={recursion}" for recursion in LIMITS}
    await app.create("one")
    few = {recursion: (await statements_of(app, monkeypatch, path))[0] for recursion, path in paths.items()}
    await fill(app, MANY - 1)
    for recursion, path in paths.items():
        statements, seconds, objects = await statements_of(app, monkeypatch, path)
        assert objects == MANY
        assert statements == few[recursion] > 0
        assert seconds < LIMITS[recursion], f"recursion={recursion}"
    found = await app.get("/1.0/instances?recursion=1&filter=name eq c9998")
    assert [each["name"] for each in found] == ["c9998"]


async def test_the_daemon_answers_while_it_makes_a_list(app: Any) -> None:
    """A list is work of the loop for a while; it has to be short enough for others not to notice much."""
    await fill(app, MANY)
    longest = 0.0

    async def probe() -> None:
        nonlocal longest
        while True:
            began = time.process_time()
            async with app.session.get("/") as answer:
                await answer.read()
            longest = max(longest, time.process_time() - began)
            await asyncio.sleep(0.01)

    task = asyncio.create_task(probe())
    await app.get("/1.0/instances?recursion=1")
    task.cancel()
    assert longest < LIMITS[1]


async def test_hundreds_at_once(app: Any) -> None:
    """Created, started, stopped and deleted by the API itself."""
    count = HUNDREDS
    gate = asyncio.Semaphore(50)

    async def life(number: int) -> None:
        async with gate:
            await app.create(f"c{number}")
            await app.set_state(f"c{number}", "start")

    await asyncio.gather(*(life(number) for number in range(count)))
    listed = await app.get("/1.0/instances?recursion=2")
    assert [each["status"] for each in listed] == ["Running"] * count
    await app.do("PUT", "/1.0/instances", {"state": {"action": "stop", "force": True}})

    async def end(number: int) -> None:
        async with gate:
            await app.do("DELETE", f"/1.0/instances/c{number}")

    await asyncio.gather(*(end(number) for number in range(count)))
    assert await app.get("/1.0/instances") == []
    assert app.daemon.storage.driver("pool").sizes == {}
