"""Changes to links, addresses, routes, bridge ports and queues: the tools of iproute2, many changes in one start.

Each change is a tuple of words, as on the tool's command line: ("link", "set", "dev", "br0", "up"). They are applied in order;
the first that fails ends the batch with HostError. A batch line is split at blanks by the tool, so a word may hold only
characters that cannot change how the line is read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from atoll.domain.errors import BadRequest
from atoll.host import process

Change = tuple[str, ...]

_WORD = re.compile(r"[A-Za-z0-9_.:/,%+@-]+")


def script(changes: Sequence[Change]) -> str:
    """The batch text of changes. BadRequest for a word that would be read as anything but one word."""
    for change in changes:
        for word in change:
            if not _WORD.fullmatch(word):
                raise BadRequest(f"Invalid value for a network setting: {word[:80]!r}")
    return "".join(" ".join(change) + "\n" for change in changes)


async def _batch(argv: Sequence[str], changes: Sequence[Change]) -> None:
    if changes:
        await process.run([*argv, "-batch", "-"], input=script(changes).encode(), timeout=30)


async def ip(changes: Sequence[Change]) -> None:
    """Links, addresses, routes."""
    await _batch(["ip"], changes)


async def bridge(changes: Sequence[Change]) -> None:
    """Ports and VLANs of bridges."""
    await _batch(["bridge"], changes)


async def tc(changes: Sequence[Change]) -> None:
    """Queueing disciplines."""
    await _batch(["tc"], changes)


async def delete_link(name: str) -> None:
    """Remove a link; nothing wrong if there is none."""
    script([(name,)])
    gone = await process.run(["ip", "link", "delete", "dev", name], check=False)
    if gone.code != 0 and b"Cannot find device" not in gone.stderr:
        await process.run(["ip", "link", "delete", "dev", name])
