"""A copy of a directory tree that others change meanwhile, and that can be brought up to date again and again.

The first `refresh` copies everything, each file as it is then; the next ones copy what changed since. So the last of them is
short, and can be made while nobody writes: then the copy is of one moment.

What changed is seen by inode, size and times. Two things would hide a change, and are taken care of: a file that changed within
the kernel's clock tick may change once more without another time, so what is so young counts as changed the next time; and pages
that a program has mapped and made dirty take writes without a new time until they are written out, so that is asked for first.

All is done by directory descriptors, so that a guest that swaps a directory for a link to /etc gets no file of the host into its
copy (cp and rsync resolve paths); what vanishes is passed over. Stays on the source's file system.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from atoll.host import file_copy, mount, syscalls
from atoll.host.file_copy import NO_FOLLOW

_ATTEMPTS = 3
_TICK_NS = 20_000_000
"""More than the coarsest clock that file systems take times from."""


class _Stamp(NamedTuple):
    """What an entry was known by when it was copied; `changed` is -1 for one that was too young to be sure of."""

    inode: int
    mode: int
    size: int
    modified: int
    changed: int

    def holds(self, found: os.stat_result) -> bool:
        """Whether the entry is surely as it was."""
        return self.changed != -1 and self == (
            found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns
        )  # fmt: skip


class _Folder:
    """What is known of a directory that was copied: its own stamp and its entries; None: begun, and not known to be whole."""

    __slots__ = ("entries", "stamp")

    def __init__(self) -> None:
        self.entries: dict[str, _Folder | _Stamp | None] = {}
        self.stamp: _Stamp | None = None


class _Link(NamedTuple):
    """Where the copy of a file with several names is; the stamp it had, and the pass in which it was made."""

    path: str
    stamp: _Stamp
    turn: int


class LiveCopy:
    """Copies the directory `source` to `target`, which may have no more than empty directories. Methods block; one at a time."""

    def __init__(self, source: Path, target: Path) -> None:
        self._source = source
        self._target = target
        self._tree = _Folder()
        self._links: dict[tuple[int, int], _Link] = {}
        self._turn = 0
        self._root = -1
        self._device = 0
        self._end = math.inf

    def refresh(self, seconds: float = math.inf) -> bool:
        """Make the copy what the source is. False when `seconds` were over before it was: the rest is for the next time."""
        self._turn += 1
        self._end = time.monotonic() + seconds
        self._target.mkdir(mode=0o700, exist_ok=True)
        with _directory(self._source) as origin, _directory(self._target) as self._root:
            self._device = os.fstat(origin).st_dev
            try:
                self._refresh_folder(origin, self._root, self._tree, "")
            except _LateError:
                return False
        return True

    def _check_time(self) -> None:
        if time.monotonic() > self._end:
            raise _LateError

    # --- directories ---------------------------------------------------------------------------------------------------

    def _refresh_folder(self, source: int, target: int, folder: _Folder, path: str) -> bool:
        """Whether anything in it, or it, was changed."""
        names = os.listdir(source)
        touched = False
        for name in folder.entries.keys() - set(names):
            self._remove(target, folder, name)
            touched = True
        for name in names:
            self._check_time()
            touched |= self._try_entry(source, target, folder, name, f"{path}{name}")
        found = os.fstat(source)
        if touched or folder.stamp is None or not folder.stamp.holds(found):
            file_copy.copy_directory_facts(source, found, target)
            folder.stamp = _stamp(found)
            touched = True
        return touched

    def _try_entry(self, source: int, target: int, folder: _Folder, name: str, path: str) -> bool:
        """An entry that goes or is replaced by one of another type between two calls is looked at anew, or passed over."""
        for _ in range(_ATTEMPTS):
            try:
                return self._refresh_entry(source, target, folder, name, path)
            except OSError as error:
                if error.errno not in file_copy.VANISHED:
                    raise
        return True

    def _refresh_entry(self, source: int, target: int, folder: _Folder, name: str, path: str) -> bool:
        found = os.stat(name, dir_fd=source, follow_symlinks=False)
        known = folder.entries.get(name)
        if stat.S_ISDIR(found.st_mode):
            return self._refresh_subfolder(source, target, folder, name, path)
        if isinstance(known, _Stamp) and known.holds(found):
            return False
        if found.st_nlink > 1 and self._link(target, folder, name, found):
            return True
        if stat.S_ISREG(found.st_mode):
            found = self._refresh_file(source, target, folder, name, found)
        else:
            self._make_way(target, folder, name)
            file_copy.new_special(source, target, name, found)
        stamp = folder.entries[name] = _stamp(found)
        if found.st_nlink > 1:
            self._links[found.st_dev, found.st_ino] = _Link(path, stamp, self._turn)
        return True

    def _refresh_subfolder(self, source: int, target: int, folder: _Folder, name: str, path: str) -> bool:
        with _directory(name, at=source) as below:
            if os.fstat(below).st_dev != self._device and not mount.is_same(below, source):
                return False  # something mounted there
            known = folder.entries.get(name)
            if not isinstance(known, _Folder):
                self._make_way(target, folder, name)
                with suppress(FileExistsError):  # made before for the copy, with something that is to stay
                    os.mkdir(name, 0o700, dir_fd=target)
                known = folder.entries[name] = _Folder()
            with _directory(name, at=target) as copy:
                return self._refresh_folder(below, copy, known, f"{path}/")

    def _make_way(self, target: int, folder: _Folder, name: str) -> None:
        """For a new entry; until that is whole, it counts as begun."""
        if name in folder.entries:
            self._remove(target, folder, name)
        folder.entries[name] = None

    def _remove(self, target: int, folder: _Folder, name: str) -> None:
        try:
            if isinstance(folder.entries[name], _Folder):
                shutil.rmtree(name, dir_fd=target)
            else:
                os.unlink(name, dir_fd=target)
        except FileNotFoundError:
            pass  # only begun
        del folder.entries[name]

    # --- files ---------------------------------------------------------------------------------------------------------

    def _link(self, target: int, folder: _Folder, name: str, found: os.stat_result) -> bool:
        """Make it one more name of a file that is copied; False if that is not copied yet, or not as it is now.

        The name is known by the stamp of the first one's copy: a change that came between the two is a change of both.
        """
        link = self._links.get((found.st_dev, found.st_ino))
        if link is None or (link.turn != self._turn and not link.stamp.holds(found)):
            return False
        self._make_way(target, folder, name)
        os.link(link.path, name, src_dir_fd=self._root, dst_dir_fd=target, follow_symlinks=False)
        folder.entries[name] = link.stamp
        return True

    def _refresh_file(self, source: int, target: int, folder: _Folder, name: str, found: os.stat_result) -> os.stat_result:
        """Returns what was true of the source before its content was read."""
        origin = os.open(name, os.O_RDONLY | NO_FOLLOW, dir_fd=source)
        try:
            syscalls.start_writeback(origin)
            found = os.fstat(origin)
            if not stat.S_ISREG(found.st_mode):
                raise FileNotFoundError(errno.ENOENT, "replaced meanwhile", name)
            if (known := self._updatable(target, folder, name, found)) is not None:
                folder.entries[name] = known._replace(changed=-1)
                file_copy.update_file(origin, found, target, name, self._check_time)
            else:
                self._make_way(target, folder, name)
                file_copy.new_file(origin, found, target, name, self._check_time)
        finally:
            os.close(origin)
        return found

    @staticmethod
    def _updatable(target: int, folder: _Folder, name: str, found: os.stat_result) -> _Stamp | None:
        """What the copy is known by if it is of the same file, and both have one name and no holes."""
        known = folder.entries.get(name)
        if not isinstance(known, _Stamp) or known.inode != found.st_ino or not stat.S_ISREG(known.mode):
            return None
        copy = os.stat(name, dir_fd=target, follow_symlinks=False)
        return known if all(each.st_nlink == 1 and each.st_blocks * 512 >= each.st_size for each in (found, copy)) else None


class _LateError(Exception):
    """The time is over."""


def _stamp(found: os.stat_result) -> _Stamp:
    young = found.st_ctime_ns > time.time_ns() - _TICK_NS
    return _Stamp(found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, -1 if young else found.st_ctime_ns)


@contextmanager
def _directory(path: Path | str, *, at: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | NO_FOLLOW, dir_fd=at)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
