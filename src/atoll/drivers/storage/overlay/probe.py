"""Whether the overlay driver works on a file system, found out by doing once what it does for every instance."""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from atoll.domain.errors import AtollError
from atoll.domain.idmap import IdMap
from atoll.drivers.storage.overlay import mounting
from atoll.drivers.storage.overlay.layers import LayerStore
from atoll.drivers.storage.sizes import Sizes
from atoll.host import confined, disk, mount, threads, userns

NEEDED = (5, 19)
"""The first kernel whose overlayfs works on idmapped layers."""

_PREFIX = ".atoll-probe-"
_MAP = IdMap.plain(1_000_000, 65536)


def kernel_version() -> tuple[int, int]:
    """Major and minor number of the running kernel."""
    major, minor = re.findall(r"\d+", os.uname().release)[:2]
    return int(major), int(minor)


async def reason_against(root: Path) -> str | None:
    """Why the driver cannot work for a pool at that folder, in one sentence; None if it can."""
    if kernel_version() < NEEDED:
        return f"Kernel {os.uname().release} has no idmapped overlays; {NEEDED[0]}.{NEEDED[1]} is the first that has"
    parent = await threads.in_thread(disk.existing_parent, root)
    kind = await threads.in_thread(disk.filesystem, parent)
    try:
        async with userns.opened(_MAP) as namespace:
            return await threads.in_thread(_try, parent, namespace)
    except (AtollError, OSError) as error:
        return f"Idmapped overlays do not work on {parent} ({kind}): {error}"


def _try(parent: Path, namespace: int) -> str | None:
    """One at a time there; what is there already was left by a kill."""
    with _locked(parent):
        for left in parent.glob(f"{_PREFIX}*"):
            _remove(left)
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        try:
            return _try_in(folder, namespace)
        finally:
            _remove(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """A lock that ends with its holder. The kernel keeps no file of it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    mount.unmount_below(folder)
    confined.remove_tree(folder)


def _try_in(folder: Path, namespace: int) -> str | None:
    for name in ("layers", "stage", "merged"):
        (folder / name).mkdir(mode=0o700)
    store = LayerStore(folder / "layers", Sizes(folder))
    lower = store.make()
    (store.tree(lower) / "below").write_bytes(b"")
    (store.tree(lower) / "directory").mkdir()
    stack = (store.make((lower,)), lower)
    mounting.mount_shifted(store.root, folder / "stage", folder / "merged", stack, _MAP, namespace)
    with mount.credentials_of_root(_MAP):
        (folder / "merged/new").write_bytes(b"")
        os.chown(folder / "merged/below", _MAP.root + 33, _MAP.root_group)  # copies up
        (folder / "merged/directory").rename(folder / "merged/renamed")
    upper = store.tree(stack[0])
    if (upper / "new").stat().st_uid != 0 or (upper / "below").stat().st_uid != 33:
        return f"Idmapped overlays on {folder.parent} do not keep plain ids"
    return None
