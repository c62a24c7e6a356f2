"""What tells two servers that they have unpacked the same image alike; kept beside the layer, which never changes."""

from __future__ import annotations

import re
from pathlib import Path

from atoll.domain.errors import NotFound
from atoll.drivers.storage import blocking
from atoll.host import archive_layers, confined

_FILE = "digest-1"
"""The number counts the ways in which it was computed."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


async def digest(folder: Path, tree: Path) -> str:
    """Of the layer in that folder; "" if there is none."""
    try:
        known = (await blocking.call("read a layer", confined.read, folder, _FILE)).decode(errors="replace")
        if _DIGEST.fullmatch(known):
            return known
    except NotFound:
        pass  # nobody has asked before
    found = await archive_layers.digest(tree)
    if found:
        await blocking.call("note a layer's digest", confined.write, folder, _FILE, found.encode())
    return found
