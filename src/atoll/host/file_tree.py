"""Files of a guest by the guest's own names, confined to its tree (security invariant I1); for workers of `file_worker`.

A path is resolved as the guest itself would resolve it, with the tree as `/`: links are followed, `..` ends at the top, and
the kernel (openat2 with RESOLVE_IN_ROOT) sees to it that nothing leads out, not even while the guest swaps names. Only regular
files are ever opened: whatever a name stands for is pinned by an O_PATH descriptor first, looked at, and opened through that very
descriptor, so that no device, pipe or terminal that a guest puts there in between is touched.

All functions block and raise OSError. Imports next to nothing: the zygote holds this module.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from atoll.host import syscalls

_RESOLVE = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
_PIN = os.O_PATH | os.O_CLOEXEC
_MOST_LINKS = 40
_MOST_TRIES = 200

NEW_FILE_MODE = 0o644
NEW_DIRECTORY_MODE = 0o750


class Tree:
    """A tree of files. `root` is a descriptor of its top, `descriptors` one of /proc/self/fd as the host has it.

    The first is the only place that paths start from; the second only ever names descriptors of this process.
    """

    def __init__(self, root: int, descriptors: int) -> None:
        self._root = root
        self._descriptors = descriptors

    # --- looking -------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def pinned(self, path: str, *, follow: bool) -> Iterator[int]:
        """An O_PATH descriptor of what the path names, while the block runs; a link at its end is followed or is itself it."""
        fd = self._pin(_checked(path), _PIN | (0 if follow else os.O_NOFOLLOW))
        try:
            yield fd
        finally:
            os.close(fd)

    def _pin(self, path: str, flags: int) -> int:
        """openat2 gives up on a `..` when anything on the host is renamed meanwhile: then it is asked again."""
        for _ in range(_MOST_TRIES):
            with contextlib.suppress(BlockingIOError):
                return syscalls.openat2(self._root, path, flags, resolve=_RESOLVE)
        raise OSError(errno.EBUSY, "Renamed all the time", path)

    def stat(self, path: str, *, follow: bool) -> os.stat_result:
        """Its attributes."""
        with self.pinned(path, follow=follow) as fd:
            return os.fstat(fd)

    def statvfs(self, path: str) -> os.statvfs_result:
        """Figures of the file system it is on."""
        with self.pinned(path, follow=True) as fd:
            return os.statvfs(fd)

    def read_link(self, path: str) -> str:
        """Where a symbolic link points, as it is written in it."""
        with self.pinned(path, follow=False) as fd:
            return self.read_pinned_link(fd)

    def read_pinned_link(self, pinned: int) -> str:
        """The same of a link behind an O_PATH descriptor."""
        return os.readlink("", dir_fd=pinned)

    # --- files ---------------------------------------------------------------------------------------------------------

    def open(self, path: str, flags: int) -> int:
        """A descriptor of an existing regular file or, with O_DIRECTORY, directory. EISDIR, ENOTDIR, or ENXIO for neither."""
        with self.pinned(path, follow=True) as fd:
            return self.reopen(fd, flags)

    def reopen(self, pinned: int, flags: int) -> int:
        """The same of what is behind an O_PATH descriptor."""
        mode = os.fstat(pinned).st_mode
        if stat.S_ISDIR(mode) and not flags & os.O_DIRECTORY:
            raise IsADirectoryError(errno.EISDIR, "Is a directory")
        if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
            raise OSError(errno.ENXIO, "Not a regular file, directory or symbolic link")
        return os.open(str(pinned), flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=self._descriptors)

    def create(self, path: str, flags: int, mode: int, *, exclusive: bool = False) -> tuple[int, bool]:
        """A descriptor of a regular file, made if there is none, and whether it was. A dangling link is followed, as the guest
        would; `exclusive`: EEXIST for anything that is there."""
        for _ in range(_MOST_LINKS):
            with self.parent(path) as (folder, name):
                with contextlib.suppress(FileExistsError):
                    return os.open(name, flags | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=folder), True
                if exclusive:
                    raise FileExistsError(errno.EEXIST, "File exists", path)
                with contextlib.suppress(FileNotFoundError):  # a link that leads nowhere: made there
                    return self.open(path, flags), False
                with contextlib.suppress(FileNotFoundError):  # it was removed meanwhile: made anew
                    target = os.readlink(name, dir_fd=folder)
                    path = target if target.startswith("/") else f"{_parent_of(path)}/{target}"
        raise OSError(errno.ELOOP, "Too many levels of symbolic links", path)

    # --- changes -------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def parent(self, path: str) -> Iterator[tuple[int, str]]:
        """(a descriptor of the directory that a path's last name is in, that name), while the block runs."""
        path = _checked(path).rstrip("/")
        name = path.rpartition("/")[2]
        if name in ("", ".", ".."):
            raise OSError(errno.EBUSY if name == "" else errno.EINVAL, "Not the name of a file", path)
        with self.pinned(_parent_of(path), follow=True) as folder:
            if not stat.S_ISDIR(os.fstat(folder).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, "Not a directory", path)
            yield folder, name

    def make_directory(self, path: str, mode: int) -> None:
        """A new directory, of that mode whatever the umask."""
        with self.parent(path) as (folder, name):
            os.mkdir(name, mode & 0o777, dir_fd=folder)
        self.change_mode(path, mode)

    def make_link(self, path: str, target: str) -> None:
        """A new symbolic link; its target is a text that nobody looks at."""
        with self.parent(path) as (folder, name):
            os.symlink(_checked(target), name, dir_fd=folder)

    def make_name(self, path: str, source: str) -> None:
        """A further name (hard link) of a file."""
        with self.parent(source) as (source_folder, source_name), self.parent(path) as (folder, name):
            os.link(source_name, name, src_dir_fd=source_folder, dst_dir_fd=folder, follow_symlinks=False)

    def rename(self, source: str, target: str, *, replace: bool) -> None:
        """Give it another name; EEXIST where there is one already, unless `replace`."""
        flags = 0 if replace else syscalls.RENAME_NOREPLACE
        with self.parent(source) as (old_folder, old), self.parent(target) as (new_folder, new):
            syscalls.renameat2(old, new, flags, source_directory=old_folder, target_directory=new_folder)

    def remove(self, path: str) -> None:
        """A file, link or whatever else, or an empty directory."""
        with self.parent(path) as (folder, name):
            try:
                os.unlink(name, dir_fd=folder)
            except IsADirectoryError:
                os.rmdir(name, dir_fd=folder)

    def remove_file(self, path: str) -> None:
        """Anything but a directory."""
        with self.parent(path) as (folder, name):
            os.unlink(name, dir_fd=folder)

    def remove_directory(self, path: str) -> None:
        """An empty directory."""
        with self.parent(path) as (folder, name):
            os.rmdir(name, dir_fd=folder)

    # --- attributes ----------------------------------------------------------------------------------------------------

    def change_mode(self, path: str, mode: int) -> None:
        """Its permissions, set-id bits included."""
        with self.pinned(path, follow=True) as fd:
            os.chmod(str(fd), mode & 0o7777, dir_fd=self._descriptors)

    def change_owner(self, path: str, uid: int, gid: int, *, follow: bool = True) -> None:
        """Its owner and group; -1 leaves one as it is."""
        if not follow:
            with self.parent(path) as (folder, name):
                os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)
            return
        with self.pinned(path, follow=True) as fd:
            os.chown(str(fd), uid, gid, dir_fd=self._descriptors)

    def change_times(self, path: str, accessed: int, modified: int) -> None:
        """Its times, in seconds since the epoch."""
        with self.pinned(path, follow=True) as fd:
            os.utime(str(fd), (accessed, modified), dir_fd=self._descriptors)

    def truncate(self, path: str, size: int) -> None:
        """Its length, if it is a regular file."""
        fd = self.open(path, os.O_WRONLY)
        try:
            os.ftruncate(fd, size)
        finally:
            os.close(fd)


def _checked(path: str) -> str:
    """EINVAL for what cannot be a path: an empty one, or one with a NUL in it."""
    if not path or "\0" in path:
        raise OSError(errno.EINVAL, "Not a path")
    return path


def _parent_of(path: str) -> str:
    head = path.rstrip("/").rpartition("/")[0]
    return head or ("/" if path.startswith("/") else ".")
