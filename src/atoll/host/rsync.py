"""Sending and receiving a tree of files by rsync, over a link to another server, with the options that LXD 5.0 uses.

rsync runs in a jail on either side (security invariant I12): what it reads from the link comes from a stranger. It sees one tree,
which a receiving one can write to and a sending one cannot, and has no way to make a device node.

On the link LXD's sender is rsync's client and its receiver rsync's server. The client is given its "remote shell" in the jail:
two pipes to the link.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from atoll.domain.errors import BadRequest, HostError, Unavailable
from atoll.domain.idmap import IdMap
from atoll.host import archive_sandbox, streams
from atoll.host.archive_sandbox import OWNING, Bind, Jail, Program
from atoll.host.pace import Pace

IDLE_SECONDS = 900.0
"""How long nothing may come or go; a list of very many files takes its time."""

END_SECONDS = 15.0
"""How long a sender may still run once the receiver has ended."""

ROOT_STAND_IN = 0xFFFF_FF00
"""Whose files are, on disk, for a moment, when rsync makes them in a user namespace in which the host's root has another id."""

_FILTERS = ("--filter=-x security.selinux",)
_RECEIVING_FILTERS = (*_FILTERS, "--filter=-x user.overlay.*")
_KEEP_ROOTFS = "--filter=P /rootfs"
"""Of an instance that LXD made empty there is none to be sent; the one here is mounted, and cannot be removed."""
_TO_THE_NANOSECOND = "--modify-window=-1"
"""When files of the same size count as the same. rsync compares seconds otherwise, and a snapshot is taken in less."""
_COMMON = ("--numeric-ids", "--devices", "--partial", "--sparse")
_CAPABILITIES, _OWN_CAPABILITIES = "e.iLsfx", "e.iLsfxCIvu"
_CAP_SETUID, _CAP_SETGID = 7, 6
_VANISHED = 24
_SHELL = 'exec rsync "$@" 3<&0 4>&1 >&2'
_REMOTE_SHELL = 'sh -c "exec 5<&0; cat <&5 >&4 & exec cat <&3 5<&-"'
_MOST_RANGES = 340  # of a map, by the kernel


class Link(Protocol):
    """A connection to the other rsync: messages, with a barrier behind the last of each side."""

    async def send(self, data: bytes) -> None:
        """Waits while the peer does not read. ConnectionError when it is gone."""

    async def send_end(self) -> None:
        """The barrier."""

    async def receive(self) -> bytes | None:
        """None at the peer's barrier or when it is gone."""

    @property
    def gone(self) -> bool:
        """Whether the peer has left."""


@dataclass(frozen=True, slots=True)
class Options:
    """What both ends have to be given alike, but for `rate`: bytes a second over this end of the link, at most; 0 for no limit.
    `whole`, which LXD does not know: hard links and access control lists too."""

    xattrs: bool = True
    delete: bool = True
    compress: bool = True
    whole: bool = False
    rate: int = 0

    def arguments(self) -> tuple[str, ...]:
        """Beside those that are always given."""
        return (
            *(("--xattrs",) if self.xattrs else ()),
            *(("--delete",) if self.delete else ()),
            *(("--compress", "--compress-level=2") if self.compress else ()),
        )


@dataclass(frozen=True, slots=True)
class Tree:
    """What is sent as one: a folder; if it has an empty `rootfs`, with another one in that place."""

    folder: Path
    rootfs: Path | None = None

    def binds(self, *, writable: bool) -> list[Bind]:
        """As the jail shows it."""
        inner = [] if self.rootfs is None else [Bind(self.rootfs, "tree/rootfs", writable=writable)]
        return [Bind(self.folder, "tree", writable=writable), *inner]


Report = Callable[[int], None]
"""Told of bytes that went over the link."""


async def send(tree: Tree, link: Link, options: Options, report: Report) -> None:
    """Send a tree that nobody changes. Unavailable if the link breaks, HostError if rsync fails on either side."""
    letters = "-arHA" if options.whole else "-ar"
    argv = (letters, *_COMMON, *options.arguments(), *_FILTERS, "/tree/", "peer:/", "-e", _REMOTE_SHELL)
    jail = Jail(tree.binds(writable=False), capabilities=OWNING, shell=True)
    code, said = await _run(("sh", "-c", _SHELL, "rsync", *argv), jail, link, report, options.rate)
    if code not in (0, _VANISHED):
        raise HostError(f"The files could not be sent: {_last(said, code)}")


async def receive(tree: Tree, link: Link, options: Options, report: Report, *, shifted: IdMap | None = None) -> None:
    """Make a tree what the other server sends, which has ids of its host that `shifted` maps, or plain ones.

    Unavailable if the link breaks, BadRequest for a map that is none, HostError if rsync fails. What a failure leaves is
    something in between.
    """
    letters = f"-vlogDtprHA{_OWN_CAPABILITIES}" if options.whole else f"-vlogDtpr{_CAPABILITIES}"
    filters = _RECEIVING_FILTERS if tree.rootfs is None else (*_RECEIVING_FILTERS, _KEEP_ROOTFS)
    argv = ("rsync", "--server", letters, *_COMMON, *options.arguments(), _TO_THE_NANOSECOND, *filters, ".", "/tree/")
    users, groups = _namespace(shifted)
    extra = (_CAP_SETUID, _CAP_SETGID) if users else ()
    jail = Jail(tree.binds(writable=True), capabilities=(*OWNING, *extra), users=users, groups=groups)
    code, said = await _run(argv, jail, link, report, options.rate)
    if code not in (0, _VANISHED):
        raise HostError(f"The files could not be received: {_last(said, code)}")


def _namespace(shifted: IdMap | None) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
    """Maps of a user namespace in which the ids that come are those that are to be on disk."""
    if shifted is None:
        return [], []
    ranges = shifted.ranges
    users = [(each.outside, each.inside, each.count) for each in ranges if each.users]
    groups = [(each.outside, each.inside, each.count) for each in ranges if each.groups]
    if not users or not groups or max(len(users), len(groups)) >= _MOST_RANGES:
        raise BadRequest("The other server's map of ids is none that files can have")
    for first, there, count in (*users, *groups):
        if first <= 0 or there < 0 or count <= 0 or first + count > ROOT_STAND_IN or there + count > ROOT_STAND_IN:
            raise BadRequest("The other server's map of ids is none that files can have")
    own = (0, ROOT_STAND_IN, 1)
    return [own, *users], [own, *groups]


# --- a program and a link ----------------------------------------------------------------------------------------------


async def _run(argv: Sequence[str], jail: Jail, link: Link, report: Report, rate: int) -> tuple[int, str]:
    """(exit code, what it said) of a program whose input and output are the link's."""
    from_link, to_program = streams.pipe()
    from_program, to_link = streams.pipe()
    try:
        program = await archive_sandbox.start(argv, jail, stdin=from_link, stdout=to_link)
    except BaseException:
        os.close(to_program)
        os.close(from_program)
        raise
    finally:
        os.close(from_link)
        os.close(to_link)
    async with program:
        await _Conversation(program, link, report, rate).run(to_program, from_program)
        return await program.finish()


class _Conversation:
    """Both directions at once, each to its end and at its own pace."""

    def __init__(self, program: Program, link: Link, report: Report, rate: int) -> None:
        self._program = program
        self._link = link
        self._report = report
        self._rate = rate
        self._last = time.monotonic()

    async def run(self, to_program: int, from_program: int) -> None:
        """Owns the descriptors."""
        tasks = {asyncio.ensure_future(self._in(to_program)), asyncio.ensure_future(self._out(from_program))}
        try:
            pending = set(tasks)
            while pending:
                done, pending = await asyncio.wait(pending, timeout=10.0, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                if time.monotonic() - self._last > IDLE_SECONDS:
                    raise Unavailable("The other server has stopped sending")
        except ConnectionError as error:
            raise Unavailable("The connection to the other server broke") from error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _out(self, fd: int) -> None:
        never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        pace = Pace(self._rate)
        try:
            async for data in streams.chunks(fd, never):
                await pace.take(len(data))
                await self._link.send(data)
                self._count(len(data))
            await self._link.send_end()
        finally:
            os.close(fd)

    async def _in(self, fd: int) -> None:
        pace = Pace(self._rate)
        try:
            while (data := await self._link.receive()) is not None:
                self._count(len(data))
                await pace.take(len(data))
                with suppress(BrokenPipeError):  # rsync has given up; the barrier is still to come
                    await streams.write_all(fd, data)
            if self._link.gone:
                raise ConnectionResetError
        finally:
            os.close(fd)
            asyncio.get_running_loop().call_later(END_SECONDS, self._program.kill)  # it does not notice by itself

    def _count(self, size: int) -> None:
        self._last = time.monotonic()
        self._report(size)


def _last(said: str, code: int) -> str:
    return said[-1000:] or f"rsync exited with code {code}"
