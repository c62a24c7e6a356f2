"""in_thread: the one door to blocking work.

The event loop is never blocked: anything that may touch a disk, wait for the kernel or compute for more than about a
millisecond goes through here. A call that changes the host is not abandoned when its caller is cancelled: it is awaited to
its end first, so that an undo step never races with the step it undoes.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Workers:
    """At most `most` threads that run what event loops give them, in the order in which it was given; one is started whenever
    all are at work.

    A request crosses over to a thread and back some twenty times. `concurrent.futures` takes two and a half times as long for
    it: there each call has two futures, one for threads and one for the loop, and the former has a lock and a condition.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._started = 0
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # One for each thread that has nothing to do. (Once all are started there may be more of them, which are for nothing.) Its
        # methods are atomic.
        self._idle: deque[None] = deque()

    def submit(self, function: Callable[..., R], *args: Any) -> asyncio.Future[R]:
        """Run a blocking function; the future is that of the running loop. RuntimeError, and nothing is run, if a thread had to
        be started and cannot be."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        try:
            self._idle.pop()
        except IndexError:
            self._start_one_more()
        self._calls.put(partial(_run, loop, future, function, args))
        return future

    def stop(self) -> None:
        """Let the threads end once they have done what was submitted. Nothing may be submitted any more."""
        for _ in range(self._started):
            self._calls.put(None)

    def _start_one_more(self) -> None:
        if self._started < self._most:
            # As a daemon: whoever must not leave before the end of a call awaits it.
            threading.Thread(target=self._work, name=f"{self._name}_{self._started + 1}", daemon=True).start()
            self._started += 1

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            del call  # else what it holds would live until the next one comes
            self._idle.append(None)


def _run(loop: asyncio.AbstractEventLoop, future: asyncio.Future[R], function: Callable[..., R], args: tuple[Any, ...]) -> None:
    try:
        _tell(loop, future, future.set_result, function(*args))
    except StopIteration as error:  # no future takes it, and whoever waits would do so for ever
        told = RuntimeError("StopIteration was raised in a thread")
        told.__cause__ = error
        _tell(loop, future, future.set_exception, told)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is for whoever waits
        _tell(loop, future, future.set_exception, error)
    finally:
        del future, function, args  # the error leads here by its traceback, and they would live until a collection finds that


def _tell(loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], settle: Callable[[Any], None], outcome: object) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(_settle, future, settle, outcome)


def _settle(future: asyncio.Future[Any], settle: Callable[[Any], None], outcome: object) -> None:
    if not future.cancelled():
        settle(outcome)


_workers = Workers("atoll", 16)
_waiters = Workers("atoll-wait", 128)


async def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a blocking function in a worker thread and return what it returns."""
    return await finished(_workers.submit(partial(function, *args, **kwargs)))


async def obtained(release: Callable[[R], object], function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """As `in_thread`, for what has to be given back, as a descriptor: of a caller who was cancelled meanwhile, and so never got
    it, `release` does that."""
    future = _workers.submit(partial(function, *args, **kwargs))
    try:
        return await finished(future)
    except asyncio.CancelledError:
        if future.exception() is None:
            release(future.result())
        raise


async def finished(future: asyncio.Future[R]) -> R:
    """Its result. Whoever waits and is cancelled, even more than once, is so only after the future's end."""
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([future])
        raise
    finally:
        del future  # an error of its leads here by its traceback


def waiting_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[R]:
    """Run a function that does little but wait, maybe for minutes, in a thread where it keeps nobody from working."""
    return _waiters.submit(partial(function, *args, **kwargs))
