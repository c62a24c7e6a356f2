"""What source and target say before the files, for instances and volumes alike: an offer, the answer to it, and LXD's index."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from typing import TypeVar

from atoll.domain.errors import BadRequest, Conflict, Unavailable
from atoll.domain.migration_header import Header, Snapshot
from atoll.host.threads import in_thread
from atoll.services.instances.sockets import Sockets
from atoll.services.migration import channels
from atoll.services.migration.channels import Channels, Peer

INDEX_VERSION = 1

_LARGEST_INDEX = 16 << 20
_LARGEST_ANSWER = 64 << 10
_ANSWER_SECONDS = 60.0

_PATIENCE = (3.0, 8.0)
"""Seconds: at least, at most."""

T = TypeVar("T")


def linked(peer: Peer | None, sockets: Sockets) -> AbstractAsyncContextManager[Channels]:
    """The link: opened to the peer, or, without one, once the websockets of an operation of ours are connected."""
    return channels.opened(peer) if peer is not None else channels.connected(sockets)


async def offer(link: Channels, told: Header, index: Callable[[Sequence[str]], Awaitable[bytes]]) -> tuple[Header, list[str]]:
    """The source's part: send the offer, and the index if the target wants one. Returns the target's answer, and the names of the
    snapshots that it wants: all of them, or for a refresh those that it lacks. BadRequest if the target refuses, with its reason,
    or wants a snapshot that was not offered."""
    await link.tell(told)
    answer = await link.hear(Header)
    chosen = _chosen(told, answer)
    if answer.index_version:
        await _send_index(link, await index(chosen))
    return answer, chosen


async def take(
    link: Channels,
    told: Header,
    wanted: Sequence[Snapshot],
    way: Header,
    read: Callable[[bytes], T],
    *,
    refresh: bool,
) -> tuple[Header, T]:
    """The target's part: answer the offer, asking for the snapshots `wanted`, sent in that way (see `transport.Ways.answer`).
    Returns the answer, and what `read` makes of the source's index, or of an empty one if the source sends none."""
    answer = dataclasses.replace(
        way,
        criu=told.criu,
        snapshot_names=tuple(each.name for each in wanted),
        snapshots=tuple(wanted),
        refresh=refresh,
        index_version=min(INDEX_VERSION, told.index_version or 0),
    )
    await link.tell(answer)
    if not answer.index_version:
        return answer, read(b"{}")
    with _broken():
        async with asyncio.timeout(_ANSWER_SECONDS):
            index = await _hear(link, _LARGEST_INDEX)
            found = await in_thread(read, index)
            await link.files.send(json.dumps({"StatusCode": 200, "Error": "", "Refresh": refresh}).encode())
            await link.files.send_end()
    return answer, found


@asynccontextmanager
async def soon(held: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """Hold what is to be refreshed, or give up after a few seconds: Conflict.

    The source holds its own instance meanwhile. Two servers that refresh each other's could wait for each other for ever, so
    the patience is random: one of the two gives up first.
    """
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(random.uniform(*_PATIENCE)):
                found = await stack.enter_async_context(held)
        except TimeoutError as error:
            raise Conflict("What is to be refreshed is busy with something else", hint="try again later") from error
        yield found


def _chosen(told: Header, answer: Header) -> list[str]:
    if not answer.refresh:
        return list(told.snapshot_names)
    wanted = set(answer.snapshot_names)
    if not wanted <= set(told.snapshot_names):
        raise BadRequest("The other server wants snapshots that were not offered")
    return [name for name in told.snapshot_names if name in wanted]


async def _send_index(link: Channels, index: bytes) -> None:
    with _broken():
        async with asyncio.timeout(_ANSWER_SECONDS):
            await link.files.send(index)
            await link.files.send_end()
            answer = await _hear(link, _LARGEST_ANSWER)
    _check(answer)


@contextmanager
def _broken() -> Iterator[None]:
    try:
        yield
    except (ConnectionError, TimeoutError) as error:
        raise Unavailable("The connection to the other server broke") from error


async def _hear(link: Channels, limit: int) -> bytes:
    """What comes over the link of files until the barrier."""
    heard = b""
    while (data := await link.files.receive()) is not None:
        heard += data
        if len(heard) > limit:
            raise BadRequest("The other server says more than can be")
    if link.files.gone:
        raise ConnectionResetError
    return heard


def _check(answer: bytes) -> None:
    try:
        told = json.loads(answer)
        refused = told.get("StatusCode") != 200
        reason = str(told.get("Error", ""))[:500]
    except (ValueError, AttributeError, RecursionError) as error:
        raise BadRequest("The other server's answer is malformed") from error
    if refused:
        raise BadRequest(f"The other server refuses: {reason}")
