"""Devices that hold a btrfs file system: made, recognised, mounted, grown. The blocking functions raise OSError."""

from __future__ import annotations

import struct
import uuid
from pathlib import Path

from atoll.host import btrfs, process

_SUPERBLOCK_AT, _MAGIC_AT, _MAGIC = 0x10000, 0x10040, b"_BHRfS_M"
_FSID_AT = 0x10020
_RESIZE = btrfs.request("w", 3, 4096)
_MAKING_SECONDS = 300.0


async def make(target: Path, label: str) -> None:
    """Make a file system in a file or on a block device. HostError if there is one already, of whatever kind."""
    await process.run(["mkfs.btrfs", "--quiet", "--label", label, "--", str(target)], timeout=_MAKING_SECONDS)


async def mount(device: Path, target: Path, options: str) -> None:
    """Mount by mount(8), which knows which of the options are the kernel's and which the file system's."""
    await process.run(["mount", "-t", "btrfs", *(["-o", options] if options else []), "--", str(device), str(target)])


async def remount(target: Path, options: str) -> None:
    """Give a mounted file system other options."""
    await process.run(["mount", "-o", f"remount,{options}" if options else "remount", "--", str(target)])


def uuid_on(device: Path) -> uuid.UUID | None:
    """The uuid of the file system on a device or in a file; None if there is no btrfs."""
    try:
        with open(device, "rb") as file:
            file.seek(_SUPERBLOCK_AT)
            block = file.read(_MAGIC_AT + len(_MAGIC) - _SUPERBLOCK_AT)
    except OSError:  # an empty drive, or one of another kind
        return None
    if block[_MAGIC_AT - _SUPERBLOCK_AT :] != _MAGIC:
        return None
    return uuid.UUID(bytes=block[_FSID_AT - _SUPERBLOCK_AT :][:16])


def device_of(wanted: uuid.UUID) -> Path | None:
    """A block device of the host with that file system."""
    known = Path("/dev/disk/by-uuid") / str(wanted)
    if known.exists():
        return known
    devices = (Path("/dev") / entry.name.replace("!", "/") for entry in sorted(Path("/sys/class/block").iterdir()))
    return next((device for device in devices if uuid_on(device) == wanted), None)


def grow(filesystem: int) -> None:
    """Let the file system, by a descriptor in it, use all of its device."""
    btrfs.call(filesystem, _RESIZE, struct.pack("=q", 0) + b"max")
