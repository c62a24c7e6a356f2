"""A folder of the daemon that can live elsewhere: it keeps its path, as a real directory or as a link to the other place.

Steps of a move, and how a kill at any of them is healed (`settle`), where F is the path and N is `.F.new` beside it:

    1. N appears: a link to the new place, or a directory when the content comes home; the content is copied to the new place
    2. F and N change names, in one step of the kernel
    3. the caller records what F is now
    4. N goes: the old directory with all that is in it, or the link after its place was emptied

What is recorded decides: if F is what it should be, N is rubbish; if N is, they change names first. All functions block.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from atoll.domain.errors import Conflict
from atoll.host import confined, disk, syscalls

log = logging.getLogger(__name__)

_VOLUME_MODE = 0o711


def beside(folder: Path) -> Path:
    """N of a folder."""
    return folder.with_name(f".{folder.name}.new")


def prepare(folder: Path, target: Path | None) -> None:
    """Step 1 without the copying: N for a move to `target`, or home (None)."""
    new = beside(folder)
    if target is None:
        new.mkdir(mode=0o700)
    else:
        new.symlink_to(target)


def begin(folder: Path, *, busy: Iterable[str]) -> None:
    """Step 2, after the content was copied: flush, change names, and take over what came or went while it was copied.

    Conflict if a name that begins with one of `busy` is in the folder: something is being made there by its path.
    """
    new = beside(folder)
    copied = _files(new)
    disk.flush_filesystem(new)
    refuse_busy(folder, busy)
    syscalls.renameat2(new, folder, syscalls.RENAME_EXCHANGE)
    _flush(folder.parent)
    _catch_up(new, folder, copied)
    disk.flush_filesystem(folder)


def refuse_busy(folder: Path, busy: Iterable[str]) -> None:
    """Conflict if something is being made in the folder, at its top or two levels below."""
    for prefix in busy:
        for pattern in (f"{prefix}*", f"*/*/{prefix}*"):
            if next(folder.glob(pattern), None) is not None:
                raise Conflict(f"Something is being written to {folder}", hint="try again when it is done")


def _catch_up(old: Path, new: Path, copied: set[str]) -> None:
    """Files that appeared in or left the old place between their copying and the change of names."""
    present = _files(old)
    for name in copied - present:
        (new / name).unlink(missing_ok=True)
    for name in present - copied:
        (new / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copy2(old / name, new / name, follow_symlinks=False)


def _files(folder: Path) -> set[str]:
    top = folder.resolve()
    return {os.fspath(path.relative_to(top)) for path in top.rglob("*") if not path.is_dir()}


def is_at(folder: Path, target: Path | None) -> bool:
    """Whether the path is a link to `target`, or a real directory (None)."""
    if target is None:
        return folder.is_dir() and not folder.is_symlink()
    return folder.is_symlink() and Path(os.readlink(folder)) == target


def settle(folder: Path, target: Path | None) -> bool:
    """Step 4, or its undoing: make the path what it should be, as far as there is something to make it of, and remove N.

    Returns whether there was something to heal. With nothing to make it of it stays as it is, and the log says so.
    """
    new = beside(folder)
    if not os.path.lexists(new):
        if not is_at(folder, target):
            log.error("%s is not where the settings say", folder, extra={"expected": str(target or "a directory of its own")})
        return False
    if not is_at(folder, target) and is_at(new, target):
        syscalls.renameat2(new, folder, syscalls.RENAME_EXCHANGE)
        _flush(folder.parent)
    if new.is_symlink():
        _empty(new.resolve())
        new.unlink()
    else:
        confined.remove_tree(new)
    _flush(folder.parent)
    return True


def _empty(place: Path) -> None:
    """What was kept there is elsewhere now: make it an empty volume again."""
    if place.is_dir():
        for entry in list(place.iterdir()):
            confined.remove_tree(entry)
        place.chmod(_VOLUME_MODE)


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
