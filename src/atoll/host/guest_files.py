"""Files that the host puts into the root file system of a guest that does not run.

The tree is the guest's work: its links may point anywhere. Directories on the way to a file are resolved as the guest itself
would resolve them, with the tree as `/` (openat2 with RESOLVE_IN_ROOT), so that `/etc -> usr/etc` and `/run -> /var/run` work
and nothing leads out. The file itself replaces whatever has its name, also a link, a device or a second name of another file:
nothing of the guest's is opened, followed or written through. All functions block.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from atoll.domain.errors import BadRequest
from atoll.host import syscalls

_RESOLVE = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to write: its absolute path in the guest. It is root's (in plain ids), with mode 0644."""

    path: str
    content: bytes


def exists(rootfs: Path, path: str) -> bool:
    """Whether the guest has something of that name, a dangling link included."""
    parent, _, last = path.strip("/").rpartition("/")
    top = os.open(rootfs, _DIRECTORY)
    try:
        folder = syscalls.openat2(top, parent or ".", _DIRECTORY, resolve=_RESOLVE)
    except OSError:
        return False
    finally:
        os.close(top)
    try:
        os.lstat(last, dir_fd=folder)
    except FileNotFoundError:
        return False
    finally:
        os.close(folder)
    return True


def write_all(rootfs: Path, files: Sequence[NewFile]) -> None:
    """Write all of them or, if one cannot be written, none; folders that are missing are made, 0755 and root's.

    BadRequest, naming the file, for a path that cannot be one. A later file of the same path wins.
    """
    with ExitStack() as descriptors, ExitStack() as undo:  # the undoing needs the descriptors
        top = os.open(rootfs, _DIRECTORY)
        descriptors.callback(os.close, top)
        staged = [_stage(top, file, undo, descriptors) for file in files]
        for put_in_place in staged:
            put_in_place()
        undo.pop_all()


def _stage(top: int, file: NewFile, undo: ExitStack, descriptors: ExitStack) -> Callable[[], None]:
    """Write a file beside its place; returns what puts it there."""
    parent, _, last = file.path.strip("/").rpartition("/")
    if last in ("", ".", ".."):
        raise BadRequest(f"{file.path!r} is not the path of a file")
    try:
        folder = _enter(top, parent, undo, descriptors)
        _refuse_directory(folder, last, file.path)
        aside = f".{last[:200]}.{secrets.token_hex(6)}"
        descriptor = os.open(aside, _NEW, 0o600, dir_fd=folder)
        undo.callback(_unlink, aside, folder)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(file.content)
            os.fchown(descriptor, 0, 0)
            os.fchmod(descriptor, 0o644)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EXDEV):
            raise BadRequest(f"{file.path!r} cannot be written: {error.strerror}") from error
        raise
    return lambda: os.rename(aside, last, src_dir_fd=folder, dst_dir_fd=folder)


def _refuse_directory(folder: int, name: str, path: str) -> None:
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode):
            raise BadRequest(f"{path!r} is a directory in the instance")


def _enter(top: int, path: str, undo: ExitStack, descriptors: ExitStack) -> int:
    """A descriptor of a directory of the guest; what is missing of it is made."""
    here, walked = top, ""
    for name in path.split("/"):
        if name in ("", "."):
            continue
        walked = f"{walked}/{name}"
        try:
            below = syscalls.openat2(top, walked, _DIRECTORY, resolve=_RESOLVE)
        except FileNotFoundError:
            below = _make(here, name, walked, undo)
        descriptors.callback(os.close, below)
        here = below
    return here


def _make(parent: int, name: str, path: str, undo: ExitStack) -> int:
    try:
        os.mkdir(name, 0o755, dir_fd=parent)
    except FileExistsError as error:
        raise BadRequest(f"{path!r} is a link that leads nowhere") from error
    undo.callback(_rmdir, name, parent)
    below = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    os.fchown(below, 0, 0)
    os.fchmod(below, 0o755)
    return below


def _unlink(name: str, folder: int) -> None:
    with suppress(OSError):
        os.unlink(name, dir_fd=folder)


def _rmdir(name: str, folder: int) -> None:
    with suppress(OSError):
        os.rmdir(name, dir_fd=folder)
