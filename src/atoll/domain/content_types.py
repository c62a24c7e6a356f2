"""What a storage volume holds: files, or one file that is the content of a disk."""

from __future__ import annotations

from enum import StrEnum

from atoll.domain.errors import BadRequest

DISK_SIZE = 10 << 30
"""Bytes of a new block volume for which no size was asked."""

_STEP = 8192
"""What sizes of disks are multiples of; programs that run machines want 8 KiB, and so does LXD."""


class ContentType(StrEnum):
    """The value is LXD's word."""

    FILESYSTEM = "filesystem"
    BLOCK = "block"
    ISO = "iso"

    @property
    def is_disk(self) -> bool:
        """Whether the volume is one file, `root.img`, of the volume's size."""
        return self is not ContentType.FILESYSTEM

    @property
    def is_fixed(self) -> bool:
        """Whether it stays what it was when it came: no other size, no snapshots."""
        return self is ContentType.ISO


def parse(text: str) -> ContentType:
    """One that a client names; "" is the usual one."""
    try:
        return ContentType(text or ContentType.FILESYSTEM)
    except ValueError as error:
        raise BadRequest(f"Invalid volume content type name {text[:40]!r}") from error


def disk_size(size: int) -> int:
    """The size that a disk gets for which this one was asked: rounded up."""
    return max(-(-size // _STEP), 1) * _STEP
