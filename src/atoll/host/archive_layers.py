"""A layer of an overlay as a tar stream: packed from a tree that nobody changes, unpacked from a stranger's.

Whiteouts go as what they are on disk, character devices 0:0, which the kernel lets be made without a capability. Marks in
extended attributes (`trusted.overlay.*`) do not go: neither jail has the capability to see them.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import BinaryIO

from atoll.domain.errors import AtollError, BadRequest, HostError
from atoll.host import archive_pack, archive_sandbox, archive_stream, archive_tar, archive_unpack, program_streams, streams
from atoll.host.archive_sandbox import OWNING, Bind, Jail, Program
from atoll.host.archive_stream import Worker
from atoll.host.archive_tar import Budget, Member, Source, clean_name
from atoll.host.threads import in_thread

_TAR = (
    "tar",
    "--create",
    "--file=-",
    "--blocking-factor=512",
    "--format=posix",
    "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
    "--sort=name",
    *archive_pack.ATTRIBUTES,
)
_MOST_NAMES = 1000
_PIECE = 1 << 20


async def pack(tree: Path, sink: Callable[[bytes], Awaitable[None]]) -> None:
    """Give the sink a tree as a tar stream. HostError."""

    async def start(writer: int) -> Program:
        return await archive_sandbox.start((*_TAR, "."), _reading(tree), stdout=writer)

    code, said = await program_streams.pour(start, sink)
    if code:
        raise HostError(f"A layer cannot be packed: {said[-500:]}")


async def digest(tree: Path) -> str:
    """The SHA-256, in hexadecimal, of all that is in a tree, with modes, owners and times: two trees that have the same look the
    same. What the folder itself is like is not part of it. "" for a tree that has too much at its top."""
    names = await in_thread(lambda: sorted(os.listdir(tree)))
    if not names or len(names) > _MOST_NAMES:
        return ""
    async with AsyncExitStack() as stack:
        packed, sink = archive_stream.pipe()
        stack.enter_context(packed)
        stack.enter_context(sink)
        worker = Worker(None, lambda: 0)
        stack.push_async_callback(worker.settle)
        argv = (*_TAR, "--", *(f"./{name}" for name in names))
        program = await stack.enter_async_context(await archive_sandbox.start(argv, _reading(tree), stdout=sink))
        sink.close()  # so that the end of tar is the end of the stream
        found = await worker.run(lambda: _hash(packed))
        code, said = await program.finish()
    if code:
        raise HostError(f"A layer cannot be read: {said[-500:]}")
    return found


def _reading(tree: Path) -> Jail:
    return Jail([Bind(tree, "work")], cwd="/work", capabilities=OWNING)


def _hash(stream: BinaryIO) -> str:
    found = hashlib.sha256()
    while piece := stream.read(_PIECE):
        found.update(piece)
    return found.hexdigest()


async def unpack(stream: AsyncIterator[bytes], target: Path, budget: Budget) -> None:
    """Make an empty folder what the stream has. BadRequest for a broken or crafted one and for device nodes, TooLarge beyond
    the budget; what a failure leaves is the caller's to remove."""
    jail = Jail([Bind(target, "work", writable=True)], cwd="/work", capabilities=OWNING, file_bytes=budget.file_bytes)
    async with AsyncExitStack() as stack:
        packed, to_tar = archive_stream.pipe()
        received, to_filter = archive_stream.pipe()
        for end in (packed, to_tar, received, to_filter):
            stack.callback(_close, end)
        source = Source(received, budget)
        worker = Worker(None, lambda: 0)
        stack.push_async_callback(worker.settle)
        stack.callback(source.stop)
        tar = await stack.enter_async_context(await archive_sandbox.start(archive_unpack.TAR, jail, stdin=packed))
        packed.close()  # so that a tar that ends is noticed
        feeder = asyncio.create_task(_feed(stream, to_filter))
        try:
            await worker.run(lambda: _filter(source, budget, to_tar))
        except BrokenPipeError:
            pass  # tar has given up: its own words follow
        except AtollError:
            if feeder.done() and (failure := feeder.exception()) is not None:
                raise failure from None  # the stream did not end, it broke
            raise
        finally:
            feeder.cancel()
            await asyncio.wait({feeder})
        archive_sandbox.raise_failure(*await tar.finish())


async def _feed(stream: AsyncIterator[bytes], to_filter: BinaryIO) -> None:
    try:
        async for data in stream:
            await streams.write_all(to_filter.fileno(), data)
    finally:
        to_filter.close()


def _filter(source: Source, budget: Budget, to_tar: BinaryIO) -> None:
    with to_tar:
        archive_tar.filter_stream(source, _Rules(), budget, to_tar.write)


def _close(end: BinaryIO) -> None:
    try:
        end.close()
    except BrokenPipeError:
        pass  # what was still to be written has no reader


class _Rules:
    """Keeps everything that a layer has; see `archive_tar.Filter`."""

    def keeps(self, member: Member) -> bool:
        if member.kind == archive_tar.BLOCK_DEVICE or (member.kind == archive_tar.CHARACTER and not _is_whiteout(member)):
            raise BadRequest(f"The instance has a device node, which cannot be received: {archive_tar.shown(member.name)}")
        if member.kind == archive_tar.LINK:
            clean_name(member.link)
        return True

    def check_complete(self) -> None:
        """Also an empty layer is one."""


def _is_whiteout(member: Member) -> bool:
    header = member.head[-1]
    return archive_tar.number(header[329:337]) == 0 and archive_tar.number(header[337:345]) == 0
