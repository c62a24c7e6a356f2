"""Reverter: the undo of a step stands on the line after the step.

    async with Reverter("create instance c1") as undo:
        await storage.create(volume)
        undo.add(storage.delete, volume)
        ...
        undo.success()

Without `success()` the steps run last-in first-out: shielded from cancellation, each time-limited, failures logged and
passed over, so that one stuck step does not keep the others from running.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

log = logging.getLogger(__name__)

STEP_SECONDS = 30.0


class Reverter:
    """Collects undo steps; runs them on exit unless `success()` was called."""

    def __init__(self, what: str, *, step_seconds: float = STEP_SECONDS) -> None:
        self._what = what
        self._step_seconds = step_seconds
        self._steps: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def add(self, step: Callable[..., Awaitable[Any] | Any], *args: Any) -> None:
        """Register a step, a plain or an async callable, with its arguments."""
        self._steps.append((step, args))

    def success(self) -> None:
        """All went well: forget the steps."""
        self._steps.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._steps:
            task = asyncio.ensure_future(self._revert())
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                while not task.done():  # whoever cancels twice waits too
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.wait([task])
                raise

    async def _revert(self) -> None:
        while self._steps:
            step, args = self._steps.pop()
            try:
                result = step(*args)
                if inspect.isawaitable(result):
                    await asyncio.wait_for(result, self._step_seconds)
            except (Exception, asyncio.CancelledError):  # a step that fails or is cancelled must not keep the others from running
                name = getattr(step, "__qualname__", repr(step))
                log.exception("Undo step failed", extra={"doing": self._what, "step": name})
