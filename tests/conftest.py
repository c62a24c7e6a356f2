"""What tests of every kind share."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable

import pytest

Until = Callable[[Callable[[], object]], Awaitable[None]]

SECONDS = 30
"""What no machine takes for a step of a test, however much else it does."""


@pytest.fixture
def until() -> Until:
    """`await until(condition)`: return when the condition, a plain function or a coroutine function, is true.

    For what comes by itself and tells nobody. A test that sleeps instead hopes that the machine is quick enough.
    """

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(SECONDS):
            while True:
                found = condition()
                if await found if inspect.isawaitable(found) else found:
                    return
                await asyncio.sleep(0.005)

    return wait
