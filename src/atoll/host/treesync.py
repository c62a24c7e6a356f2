"""Making one directory tree like another that has much in common with it: only what differs is copied.

What is compared: type, owner, mode, size, time of modification to the nanosecond, link target, device number, extended
attributes (hence ACLs and capabilities) and which names are of one file. As in rsync, a file of the same size and time counts as
the same, but where the times are those of an archive: they are whole seconds, in which a file may change more than once. Files
are never written to in place: one that differs is made anew beside its name and renamed, so that other names of the old one
keep its content, and layers and snapshots that share blocks with it are not touched.

Nobody may change either tree meanwhile. Names are looked up in descriptors of their directories and no link is followed.
Flags of chattr(1) are not copied; those in the target do not stand in the way.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from atoll.domain.errors import HostError
from atoll.host import confined, file_copy, mount, threads

DEEPEST = 256
"""Directories within each other; a tree that is deeper is refused: two descriptors are open for each level."""

_PIECE = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | file_copy.NO_FOLLOW


async def sync(source: Path, target: Path, *, read_content: bool = False) -> None:
    """Make the directory `target` like the directory `source`. HostError, naming the file, if something cannot be copied.

    With `read_content`, for times that do not tell enough, files that look the same are read and compared.
    """
    try:
        await threads.finished(threads.waiting_thread(_sync, source, target, read_content))
    except OSError as error:
        raise file_copy.failed(source, error) from error


def _sync(source: Path, target: Path, read_content: bool) -> None:
    with _opened(source) as origin, _opened(target) as copy:
        _Sync(origin, copy, read_content=read_content).run()


@contextmanager
def _opened(path: Path | str, folder: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, _DIRECTORY, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


_File = tuple[int, int]
"""Device and inode: what two names of one file have in common."""


def _file(found: os.stat_result) -> _File:
    return found.st_dev, found.st_ino


class _Sync:
    """Walks both trees. Of files with several names `_firsts` knows the one that was met first, by the source's inode, and
    `_owners` whose the target's inodes are: names that are of one file there may be of two in the source."""

    def __init__(self, source: int, target: int, *, read_content: bool) -> None:
        self._source = source
        self._target = target
        self._read_content = read_content
        self._device = os.fstat(source).st_dev
        self._firsts: dict[_File, str] = {}
        self._owners: dict[_File, _File] = {}

    def run(self) -> None:
        self._directory(self._source, self._target, "", 0)

    def _directory(self, source: int, target: int, path: str, depth: int) -> None:
        if depth > DEEPEST:
            raise HostError(f"Directories are nested deeper than {DEEPEST}: {path[:200]}…")
        wanted = os.listdir(source)
        for name in set(os.listdir(target)) - set(wanted):
            confined.remove_entry(target, name)
        for name in wanted:
            found = os.stat(name, dir_fd=source, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                self._file(source, target, name, found, path + name)
                continue
            with _opened(name, source) as below:
                if found.st_dev != self._device and not mount.is_same(below, source):
                    continue  # something is mounted there
                _make_directory(target, name)
                with _opened(name, target) as copy:
                    self._directory(below, copy, f"{path}{name}/", depth + 1)
        _sync_directory(source, target)

    def _file(self, source: int, target: int, name: str, found: os.stat_result, path: str) -> None:
        if found.st_nlink > 1 and (first := self._firsts.get(_file(found))) is not None:
            self._link(target, name, first)
            return
        present = _stat(target, name)
        anothers = present is not None and self._owners.get(_file(present), _file(found)) != _file(found)
        if present is None or anothers or not self._is_same(source, target, name, found, present):
            _replace(source, target, name, found)
        else:
            _sync_attributes(source, target, name, found, present)
        if found.st_nlink > 1:
            self._firsts[_file(found)] = path
        self._owners[_file(os.stat(name, dir_fd=target, follow_symlinks=False))] = _file(found)

    def _is_same(self, source: int, target: int, name: str, found: os.stat_result, present: os.stat_result) -> bool:
        if not _is_alike(source, target, name, found, present):
            return False
        return not self._read_content or not stat.S_ISREG(found.st_mode) or _has_same_content(source, target, name)

    def _link(self, target: int, name: str, first: str) -> None:
        """Make a name one more of the file that was met before."""
        present = _stat(target, name)
        wanted = os.stat(first, dir_fd=self._target, follow_symlinks=False)
        if present is None or _file(present) != _file(wanted):
            aside = _aside()
            os.link(first, aside, src_dir_fd=self._target, dst_dir_fd=target, follow_symlinks=False)
            _put(target, aside, name)


def _replace(source: int, target: int, name: str, found: os.stat_result) -> None:
    aside = _aside()
    if stat.S_ISREG(found.st_mode):
        origin = os.open(name, os.O_RDONLY | file_copy.NO_FOLLOW, dir_fd=source)
        try:
            file_copy.new_file(origin, found, target, aside, lambda: None)
        finally:
            os.close(origin)
        file_copy.copy_entry_xattrs(source, name, target, aside)
    else:
        file_copy.new_special(source, target, name, found, new=aside)
    _put(target, aside, name)


def _stat(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _aside() -> str:
    return f".atoll-{secrets.token_hex(8)}"


def _put(folder: int, aside: str, name: str) -> None:
    """Give a name to what was made aside; what has the name goes, also a directory and an immutable file."""
    try:
        os.rename(aside, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.EPERM):
            raise
        confined.remove_entry(folder, name)
        os.rename(aside, name, src_dir_fd=folder, dst_dir_fd=folder)
    if _stat(folder, aside) is not None:  # both were names of one file already: then rename(2) does nothing
        os.unlink(aside, dir_fd=folder)


def _make_directory(folder: int, name: str) -> None:
    present = _stat(folder, name)
    if present is not None and not stat.S_ISDIR(present.st_mode):
        confined.remove_entry(folder, name)
        present = None
    if present is None:
        os.mkdir(name, 0o700, dir_fd=folder)


def _sync_directory(source: int, target: int) -> None:
    """Owner, mode, attributes and times of a directory, after all below it."""
    found, present = os.fstat(source), os.fstat(target)
    if _owner(found) != _owner(present):
        os.fchown(target, found.st_uid, found.st_gid)
        os.fchmod(target, stat.S_IMODE(found.st_mode))
    file_copy.copy_entry_xattrs(source, ".", target, ".")
    if found.st_mtime_ns != os.fstat(target).st_mtime_ns:
        os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def _is_alike(source: int, target: int, name: str, found: os.stat_result, present: os.stat_result) -> bool:
    """Whether what is in the target has the source's content."""
    if stat.S_IFMT(found.st_mode) != stat.S_IFMT(present.st_mode) or found.st_mtime_ns != present.st_mtime_ns:
        return False
    if stat.S_ISREG(found.st_mode):
        return found.st_size == present.st_size
    if stat.S_ISLNK(found.st_mode):
        return os.readlink(name, dir_fd=source) == os.readlink(name, dir_fd=target)
    return found.st_rdev == present.st_rdev


def _has_same_content(source: int, target: int, name: str) -> bool:
    """Of two regular files of the same size."""
    with _opened_file(source, name) as one, _opened_file(target, name) as other:
        while piece := one.read(_PIECE):
            if piece != other.read(_PIECE):
                return False
    return True


def _opened_file(folder: int, name: str) -> BinaryIO:
    return os.fdopen(os.open(name, os.O_RDONLY | file_copy.NO_FOLLOW, dir_fd=folder), "rb", buffering=0)


def _sync_attributes(source: int, target: int, name: str, found: os.stat_result, present: os.stat_result) -> None:
    """What may differ where the content is the same. Changing the owner drops capabilities: attributes come after."""
    if _owner(found) != _owner(present):
        file_copy.set_owner(target, name, found)
    file_copy.copy_entry_xattrs(source, name, target, name)


def _owner(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)
