"""Many small pieces of the daemon's own work as one operation."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from atoll.domain.errors import AtollError, HostError
from atoll.services.operations import Operation, OperationRegistry, OperationSpec

log = logging.getLogger(__name__)

Piece = tuple[str, Callable[[], Awaitable[None]]]
"""What it is about, for messages, and the work."""


async def run(operations: OperationRegistry, description: str, pieces: Sequence[Piece], *, at_once: int) -> None:
    """Do all pieces, `at_once` at a time, and wait for it. A failing one is logged and keeps no other from being done; then the
    operation has failed. Nothing happens without pieces."""
    if not pieces:
        return
    turns = asyncio.Semaphore(at_once)
    failed: list[str] = []

    async def do(about: str, work: Callable[[], Awaitable[None]]) -> None:
        async with turns:
            try:
                await work()
            except AtollError as error:
                log.warning("%s: %s: %s", description, about, error)
                failed.append(f"{about}: {error}")

    async def work(_: Operation) -> None:
        await asyncio.gather(*(do(*piece) for piece in pieces))
        if failed:
            raise HostError(f"{len(failed)} of {len(pieces)} failed: {'; '.join(failed[:5])}")

    await operations.start(OperationSpec(description, work, project="")).wait()
