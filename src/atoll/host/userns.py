"""User namespaces as file descriptors: the form in which the kernel takes an id map for a mount.

The namespace is that of a short-lived helper program; the descriptor keeps it alive after the helper has ended. Making one
costs 2–5 ms, so descriptors are kept by map, the least recently used ones closed.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from atoll.domain.errors import HostError
from atoll.domain.idmap import IdMap
from atoll.host import process, threads

KEPT = 128
START_SECONDS = 10.0

_descriptors: OrderedDict[IdMap, int] = OrderedDict()


@asynccontextmanager
async def opened(idmap: IdMap) -> AsyncIterator[int]:
    """A descriptor of a user namespace with that map, the caller's own while the block runs. HostError if the map is bad."""
    kept = _descriptors.get(idmap)
    if kept is None:
        kept = await _make(idmap)
        _keep(idmap, kept)
    else:
        _descriptors.move_to_end(idmap)
    mine = os.dup(kept)
    try:
        yield mine
    finally:
        os.close(mine)


def map_lines(idmap: IdMap, *, groups: bool) -> str:
    """The map as /proc/PID/uid_map (or gid_map) takes it."""
    ranges = [entry for entry in idmap.ranges if (entry.groups if groups else entry.users)]
    return "".join(f"{entry.inside} {entry.outside} {entry.count}\n" for entry in ranges)


def _keep(idmap: IdMap, descriptor: int) -> None:
    if (raced := _descriptors.pop(idmap, None)) is not None:
        os.close(raced)
    _descriptors[idmap] = descriptor
    while len(_descriptors) > KEPT:
        os.close(_descriptors.popitem(last=False)[1])


async def _make(idmap: IdMap) -> int:
    """Start `cat` in a new user namespace; that it echoes shows that the namespace is there. Its input's end ends it."""
    child = await process.start(["unshare", "--user", "--", process.find("cat")], stdin=asyncio.subprocess.PIPE)
    assert child.stdin is not None and child.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS):
            child.stdin.write(b"\n")
            if not await child.stdout.readline():
                _, said = await child.communicate()
                raise HostError(f"Cannot make a user namespace: {said.decode(errors='replace').strip()}")
            return await threads.in_thread(_map_and_open, child.pid, idmap)
    except (OSError, TimeoutError) as error:
        raise HostError(f"Cannot make a user namespace for the id map: {error}") from error
    finally:
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()


def _map_and_open(pid: int, idmap: IdMap) -> int:
    for name in ("uid_map", "gid_map"):
        descriptor = os.open(f"/proc/{pid}/{name}", os.O_WRONLY)
        try:
            os.write(descriptor, map_lines(idmap, groups=name == "gid_map").encode())  # the kernel takes one write only
        finally:
            os.close(descriptor)
    return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)
