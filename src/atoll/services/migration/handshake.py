"""What source and target say before files come, whatever these are of: an offer, the answer to it, and LXD's index."""

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
from atoll.services.instances.sockets import Sockets
from atoll.services.migration import channels
from atoll.services.migration.channels import Channels, Peer

INDEX_VERSION = 1

_LARGEST_INDEX = 4 << 20
_LARGEST_ANSWER = 64 << 10
_ANSWER_SECONDS = 60.0

_PATIENCE = (3.0, 8.0)
"""Seconds: at least, at most."""

T = TypeVar("T")


def linked(peer: Peer | None, sockets: Sockets) -> AbstractAsyncContextManager[Channels]:
    """The link: opened to the peer, or, without one, once the websockets of an operation of ours are connected."""
    return channels.opened(peer) if peer is not None else channels.connected(sockets)


async def offer(link: Channels, told: Header, index: Callable[[Sequence[str]], Awaitable[bytes]]) -> tuple[Header, list[str]]:
    """The source's part: the target's answer, and the snapshots that it wants: all, or those that it lacks. It has been told the
    index of them. BadRequest, with its reason, if it does not go on, or wants what was not offered."""
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
    """The target's part: our answer, which asks for these snapshots to come in that way (see `transport.Ways.answer`), and the
    index, which is an empty one if the source has none. Whatever `read` raises is the end of it."""
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
            found = read(index)
            await link.files.send(json.dumps({"StatusCode": 200, "Error": "", "Refresh": refresh}).encode())
            await link.files.send_end()
    return answer, found


@asynccontextmanager
async def soon(held: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """Hold what a target is going to change, while its source waits, which itself holds something that a target may wait for. Of
    two that so wait for each other one gives up first. Conflict: then, and for what is busy otherwise."""
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
        await link.files.send(index)
        await link.files.send_end()
        async with asyncio.timeout(_ANSWER_SECONDS):
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
