"""Loop devices: files that the kernel treats as disks. Functions block and raise OSError."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CONTROL = "/dev/loop-control"
_CONFIGURE, _GET_STATUS64, _SET_CAPACITY, _CTL_GET_FREE = 0x4C0A, 0x4C05, 0x4C07, 0x4C82
_AUTOCLEAR, _DIRECT_IO = 4, 16
_INFO_BYTES = 232
_CONFIG = struct.Struct("=II52xI176x64x")
"""struct loop_config: file, block size (0: the kernel's choice), a loop_info64 of which only the flags are set, a reserve."""
_ATTEMPTS = 20


@contextmanager
def attached(file: Path) -> Iterator[Path]:
    """The loop device of a file, a new one unless the file has one. It goes by itself when the block has been left and its
    last mount is gone, also after a kill."""
    descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        device, held = _present(descriptor) or _configured(descriptor)
    finally:
        os.close(descriptor)
    try:
        yield device
    finally:
        os.close(held)


def take_on_size(file: Path) -> None:
    """Let the file's loop device, if it has one, be as large as the file is now."""
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        present = _present(descriptor)
    finally:
        os.close(descriptor)
    if present is not None:
        try:
            fcntl.ioctl(present[1], _SET_CAPACITY)
        finally:
            os.close(present[1])


def _present(file: int) -> tuple[Path, int] | None:
    """The device that a file has already, and a descriptor of it. Compared by inode: a path may have been another file's."""
    wanted = os.fstat(file)
    for state in Path("/sys/block").glob("loop*/loop"):
        device = Path("/dev") / state.parent.name
        try:
            held = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue  # gone meanwhile, or not for us
        try:
            info = fcntl.ioctl(held, _GET_STATUS64, bytes(_INFO_BYTES))
        except OSError:  # free again
            info = bytes(_INFO_BYTES)
        if struct.unpack_from("=QQ", info) == (_kernel_device(wanted.st_dev), wanted.st_ino):
            return device, held
        os.close(held)
    return None


def _kernel_device(number: int) -> int:
    """A device number in the kernel's long form, as the loop driver tells it."""
    major, minor = os.major(number), os.minor(number)
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)


def _configured(file: int) -> tuple[Path, int]:
    """A free device, taken. Others may take the same one first: then the next."""
    for _ in range(_ATTEMPTS):
        control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
        try:
            device = Path(f"/dev/loop{fcntl.ioctl(control, _CTL_GET_FREE)}")
        finally:
            os.close(control)
        held = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(held, _CONFIGURE, _CONFIG.pack(file, 0, _AUTOCLEAR | _DIRECT_IO))
        except OSError as error:
            os.close(held)
            if error.errno != errno.EBUSY:
                raise
        else:
            return device, held
    raise OSError(errno.EBUSY, "no loop device is free")
