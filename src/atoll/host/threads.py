"""in_thread: the one door to blocking work.

The event loop is never blocked: anything that may touch a disk, wait for the kernel or compute for more than about a
millisecond goes through here. A call that changes the host is not abandoned when its caller is cancelled: it is awaited to
its end first, so that an undo step never races with the step it undoes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_WORKERS = 16
_WAITERS = 128
_executor = ThreadPoolExecutor(_WORKERS, thread_name_prefix="atoll")
_waiters = ThreadPoolExecutor(_WAITERS, thread_name_prefix="atoll-wait")


async def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a blocking function in a worker thread and return what it returns."""
    return await finished(asyncio.get_running_loop().run_in_executor(_executor, partial(function, *args, **kwargs)))


async def finished(future: asyncio.Future[R]) -> R:
    """Its result. Whoever waits and is cancelled, even more than once, is so only after the future's end."""
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([future])
        raise


def waiting_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[R]:
    """Run a function that does little but wait, maybe for minutes, in a thread where it keeps nobody from working."""
    return asyncio.get_running_loop().run_in_executor(_waiters, partial(function, *args, **kwargs))
