"""Whole copies of directory trees: owners, modes, times, extended attributes, hard links, holes, devices, whiteouts.

    copy_still   a tree that nobody changes meanwhile: `cp` in a process of its own, the fastest for large trees
    copy_live    a tree that a running guest changes: by directory descriptors, so that a guest that swaps a directory for a
                 link to /etc gets no file of the host into its copy (cp and rsync resolve paths); what vanishes is passed over

Both share blocks with the source where the file system can (reflink), stay on the source's file system, follow no link, and
keep `trusted.*` attributes, hence the marks of overlay layers. The target must not exist, or be an empty directory.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path

from atoll.domain.errors import HostError
from atoll.host import process, threads

_FICLONE = 0x40049409
_CHUNK = 64 << 20
_NO_FOLLOW = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE, errno.ENXIO)
_ATTEMPTS = 3
_SECONDS = 6 * 3600.0


async def copy_still(source: Path, target: Path) -> None:
    """Copy the directory `source` to `target`. HostError with what cp said if anything could not be copied."""
    argv = ["cp", "--archive", "--one-file-system", "--reflink=auto", "--no-target-directory", "--", str(source), str(target)]
    await process.run(argv, timeout=_SECONDS)


async def copy_live(source: Path, target: Path) -> None:
    """Copy the directory `source` to `target` while others may write below it. Each file is copied once, as it is then."""
    try:
        await threads.in_thread(_copy_live, source, target)
    except OSError as error:
        raise HostError(f"Cannot copy {source}: {error.strerror or error} ({error.filename})") from error


def _copy_live(source: Path, target: Path) -> None:
    target.mkdir(mode=0o700, exist_ok=True)
    origin = os.open(source, os.O_RDONLY | os.O_DIRECTORY | _NO_FOLLOW)
    try:
        copy = os.open(target, os.O_RDONLY | os.O_DIRECTORY | _NO_FOLLOW)
        try:
            _LiveCopy(origin, copy).run()
        finally:
            os.close(copy)
    finally:
        os.close(origin)


class _LiveCopy:
    """Walks by descriptors; `_links` knows the first copy of files with several names, by inode."""

    def __init__(self, source: int, target: int) -> None:
        self._source = source
        self._target = target
        self._device = os.fstat(source).st_dev
        self._links: dict[int, str] = {}

    def run(self) -> None:
        self._directory(self._source, self._target, "")

    def _directory(self, source: int, target: int, path: str) -> None:
        for name in os.listdir(source):
            self._try_entry(source, target, name, f"{path}{name}")
        _copy_xattrs(source, target)
        _copy_owner(os.fstat(source), target)

    def _try_entry(self, source: int, target: int, name: str, path: str) -> None:
        """An entry that goes or is replaced by one of another type between two calls is looked at anew, or passed over."""
        for _ in range(_ATTEMPTS):
            try:
                self._entry(source, target, name, path)
            except OSError as error:
                if error.errno not in _VANISHED:
                    raise
            else:
                return

    def _entry(self, source: int, target: int, name: str, path: str) -> None:
        found = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            self._subdirectory(source, target, name, path)
            return
        if found.st_nlink > 1 and (first := self._links.get(found.st_ino)) is not None:
            os.link(first, name, src_dir_fd=self._target, dst_dir_fd=target, follow_symlinks=False)
            return
        if stat.S_ISREG(found.st_mode):
            _copy_file(source, target, name)
        else:
            _copy_special(source, target, name, found)
        if found.st_nlink > 1:
            self._links[found.st_ino] = path

    def _subdirectory(self, source: int, target: int, name: str, path: str) -> None:
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | _NO_FOLLOW, dir_fd=source)
        try:
            if os.fstat(below).st_dev != self._device:
                return  # something mounted there
            os.mkdir(name, 0o700, dir_fd=target)
            copy = os.open(name, os.O_RDONLY | os.O_DIRECTORY | _NO_FOLLOW, dir_fd=target)
            try:
                self._directory(below, copy, f"{path}/")
            finally:
                os.close(copy)
        finally:
            os.close(below)


def _copy_file(source: int, target: int, name: str) -> None:
    origin = os.open(name, os.O_RDONLY | _NO_FOLLOW, dir_fd=source)
    try:
        found = os.fstat(origin)
        if not stat.S_ISREG(found.st_mode):
            raise FileNotFoundError(errno.ENOENT, "replaced meanwhile", name)
        copy = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, 0o600, dir_fd=target)
        try:
            _copy_content(origin, copy, found.st_size)
            _copy_owner(found, copy)
            _copy_xattrs(origin, copy)  # after the owner: changing that drops security.capability
            os.utime(copy, ns=(found.st_atime_ns, found.st_mtime_ns))
        finally:
            os.close(copy)
    finally:
        os.close(origin)


def _copy_content(origin: int, copy: int, size: int) -> None:
    try:
        fcntl.ioctl(copy, _FICLONE, origin)
        return
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.EXDEV, errno.ENOTTY):
            raise
    position = 0
    while position < size:
        try:
            start = os.lseek(origin, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break  # only a hole is left, or it was cut meanwhile
        position = min(os.lseek(origin, start, os.SEEK_HOLE), size)
        _copy_range(origin, copy, start, position)
    os.ftruncate(copy, size)


def _copy_range(origin: int, copy: int, start: int, end: int) -> None:
    while start < end:
        done = os.copy_file_range(origin, copy, min(end - start, _CHUNK), start, start)
        if done == 0:
            return
        start += done


def _copy_special(source: int, target: int, name: str, found: os.stat_result) -> None:
    """A symbolic link, device (a whiteout is one), fifo or socket."""
    if stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    else:
        os.mknod(name, found.st_mode, found.st_rdev, dir_fd=target)
    os.chown(name, found.st_uid, found.st_gid, dir_fd=target, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):
        os.chmod(name, stat.S_IMODE(found.st_mode), dir_fd=target)
    _copy_special_xattrs(source, target, name)
    os.utime(name, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def _copy_special_xattrs(source: int, target: int, name: str) -> None:
    """Links and devices may carry trusted.* and security.* attributes; there is no f*xattr call for them, the l* ones take
    a path, here through the directory's descriptor with the name as the last part, which they do not follow."""
    origin, copy = f"/proc/self/fd/{source}/{name}", f"/proc/self/fd/{target}/{name}"
    for attribute in os.listxattr(origin, follow_symlinks=False):
        os.setxattr(copy, attribute, os.getxattr(origin, attribute, follow_symlinks=False), follow_symlinks=False)


def _copy_xattrs(source: int, target: int) -> None:
    for attribute in os.listxattr(source):
        try:
            value = os.getxattr(source, attribute)
        except OSError as error:
            if error.errno != errno.ENODATA:  # removed meanwhile
                raise
        else:
            os.setxattr(target, attribute, value)


def _copy_owner(found: os.stat_result, descriptor: int) -> None:
    os.fchown(descriptor, found.st_uid, found.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(found.st_mode))
    os.utime(descriptor, ns=(found.st_atime_ns, found.st_mtime_ns))
