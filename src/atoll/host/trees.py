"""Whole copies of directory trees: owners, modes, times, extended attributes, hard links, holes, devices, whiteouts.

    copy_still   a tree that nobody changes meanwhile: `cp` in a process of its own, the fastest for large trees
    copy_live    a tree that a running guest changes, see `live_copy`; of one moment, if the guest can be paused for one

Both share blocks with the source where the file system can (reflink), stay on the source's file system, follow no link, and
keep `trusted.*` attributes, hence the marks of overlay layers. The target must not exist, or have but empty
directories.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from atoll.domain.errors import HostError
from atoll.host import disk, file_copy, process, threads
from atoll.host.live_copy import LiveCopy

log = logging.getLogger(__name__)

Pause = Callable[[], AbstractAsyncContextManager[None]]
"""Whoever writes to a tree does not while the block runs."""

PAUSES = (0.25, 0.5, 1.0, 2.0)
"""Seconds that a copy may take of each pause, one after the other until one suffices; those that cannot are left out."""

_SHORT = 0.1
_PREPARING = 4
_SECONDS = 6 * 3600.0


async def copy_still(source: Path, target: Path) -> None:
    """Copy the directory `source` to `target`. HostError with what cp said if anything could not be copied."""
    within = [] if await threads.in_thread(_on_btrfs, source) else ["--one-file-system"]  # to cp a subvolume is another one
    argv = ["cp", "--archive", *within, "--reflink=auto", "--no-target-directory", "--", str(source), str(target)]
    await process.run(argv, timeout=_SECONDS)


def _on_btrfs(path: Path) -> bool:
    return path.exists() and disk.filesystem(path) == "btrfs"


async def copy_live(source: Path, target: Path, pause: Pause | None = None) -> None:
    """Copy the directory `source` to `target` while others may write below it.

    Without `pause` each file is copied once, as it is then. With it the copy is what the source was in one moment; most of it is
    made before the pause. HostError if more changes between pauses than can be copied in the longest.
    """
    try:
        await _copy_live(LiveCopy(source, target), pause)
    except OSError as error:
        raise file_copy.failed(source, error) from error
    except RecursionError as error:
        raise HostError(f"Cannot copy {source}: its directories are nested too deeply") from error


async def _copy_live(copy: LiveCopy, pause: Pause | None) -> None:
    needed = await _approach(copy, at_most=_PREPARING if pause is not None else 1)
    if pause is None:
        return
    for seconds in PAUSES:
        if needed > seconds and seconds != PAUSES[-1]:
            continue
        async with pause():
            if await threads.in_thread(copy.refresh, seconds):
                return
        log.info("A copy of a changing tree was not done in %g seconds, trying again", seconds)
        needed = await _approach(copy, at_most=1)
    raise HostError(
        f"More files change than can be copied in a pause of {PAUSES[-1]:g} seconds",
        hint="stop the instance for this, or keep it in a pool whose file system shares blocks (btrfs, xfs)",
    )


async def _approach(copy: LiveCopy, *, at_most: int) -> float:
    """Copy without a pause, again while that takes long and gets shorter. Returns the seconds that the last time took."""
    taken = float("inf")
    for _ in range(at_most):
        start = time.monotonic()
        await threads.in_thread(copy.refresh)
        before, taken = taken, time.monotonic() - start
        if taken < _SHORT or taken > before / 2:
            break
    return taken
