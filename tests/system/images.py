"""Images that system tests start from, built once and kept: `await images.cached("debian/12")` is the packed file.

A Debian takes half a minute to build, so it is kept under `$ATOLL_TEST_CACHE` (or `~/.cache/atoll-tests`), by a key of all
that decides its content; it is built anew when the builder changes or after a month.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from pathlib import Path

from atoll.host.imagebuild import build, recipe

DAY_SECONDS = 86400.0
MAX_AGE_SECONDS = 30 * DAY_SECONDS


def cache_folder() -> Path:
    """Where the images are kept; made if it is not there."""
    folder = Path(os.environ.get("ATOLL_TEST_CACHE") or Path.home() / ".cache/atoll-tests")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def key(name: str) -> str:
    """Names an image by its recipe and the builder's source."""
    digest = hashlib.sha256(repr(recipe.find(name)).encode())
    for path in sorted(Path(build.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return f"{name.replace('/', '-')}-{build.host_architecture().name}-{digest.hexdigest()[:16]}"


def reaches_mirrors() -> bool:
    """False without a default route, as in a network namespace of a test: only `busybox` and what is cached can be had."""
    routes = Path("/proc/net/route").read_text().splitlines()[1:]
    return any(line.split()[1] == "00000000" for line in routes)


def is_cached(name: str) -> bool:
    """Whether a recent image of that recipe is there."""
    path = cache_folder() / f"{key(name)}.tar.zst"
    return path.is_file() and time.time() - path.stat().st_mtime < MAX_AGE_SECONDS


async def cached(name: str) -> Path:
    """The unified image of that recipe, built if there is no recent one. Tests running at the same time build it once."""
    folder = cache_folder()
    path = folder / f"{key(name)}.tar.zst"
    with (folder / f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_cached(name):
            os.utime(path, (time.time(), path.stat().st_mtime))  # it is in use
            return path
        work = Path(tempfile.mkdtemp(dir=folder))
        try:
            await build.build(recipe.find(name), work, work / "image")
            for other in folder.glob(f"{path.name.rpartition('-')[0]}-*.tar.zst"):
                if time.time() - other.stat().st_atime > DAY_SECONDS:  # else another checkout's tests may be at it
                    other.unlink(missing_ok=True)
            (work / "image").rename(path)
        finally:
            shutil.rmtree(work)
    return path
