"""Terminals from a machine's own devpts, so that `tty` and `ps` inside name them, and no host terminal is ever at stake."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from atoll.host import pidfd, streams, syscalls

_TIOCGPTPEER = 0x5441
_TIOCSPTLCK = 0x40045431
_MODE = 0o620


def open(init_pid: int, *, user: int, group: int) -> tuple[int, int]:
    """(master, slave), close-on-exec, of a new pty owned by those host ids. From the host's devpts if the guest has none."""
    try:
        master, slave = _open_inside(init_pid)
    except OSError:
        master, slave = os.openpty()
    try:
        os.fchown(slave, user, group)
        os.fchmod(slave, _MODE)
    except OSError:
        os.close(master)
        os.close(slave)
        raise
    return master, slave


@contextmanager
def _looked_up(init_pid: int, path: str) -> Iterator[int]:
    """A file of the guest, as O_PATH: looked up below the guest's root, and not opened, for it may be anything."""
    root = os.open(f"/proc/{init_pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        within = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
        found = syscalls.openat2(root, path, os.O_PATH, resolve=within)
    finally:
        os.close(root)
    try:
        yield found
    finally:
        os.close(found)


def _open_inside(init_pid: int) -> tuple[int, int]:
    """Open the guest's ptmx: looked up below the guest's root, and opened only once it is known to be a devpts's."""
    with _looked_up(init_pid, "dev/pts/ptmx") as found:
        if syscalls.filesystem_magic(found) != syscalls.DEVPTS_MAGIC:
            raise OSError(f"dev/pts of the machine with init {init_pid} is no devpts")
        master = os.open(f"/proc/self/fd/{found}", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
        return master, fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        os.close(master)
        raise


def resize_console(init_pid: int, init_fd: int, *, width: int, height: int) -> None:
    """Tell a machine's console its size in characters. OSError if its /dev/console is no terminal of a devpts, or it has ended.

    Looked up below the guest's root, and opened only once it is known to be a terminal: what a guest puts there instead is not.
    """
    with _looked_up(init_pid, "dev/console") as found:
        if syscalls.filesystem_magic(found) != syscalls.DEVPTS_MAGIC or not stat.S_ISCHR(os.fstat(found).st_mode):
            raise OSError(errno.ENOTTY, "The console is not a terminal of a devpts")
        if pidfd.is_gone(init_fd):
            raise ProcessLookupError(errno.ESRCH, "The machine has stopped")
        terminal = os.open(f"/proc/self/fd/{found}", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        streams.set_window(terminal, width=width, height=height)
    finally:
        os.close(terminal)


def host_id(map_text: str, inside: int) -> int:
    """The host's id of a guest's, by the text of /proc/PID/uid_map or gid_map. KeyError if the guest has no such id."""
    for line in map_text.splitlines():
        first, outside, count = (int(word) for word in line.split())
        if first <= inside < first + count:
            return outside + inside - first
    raise KeyError(f"id {inside} is not mapped")
