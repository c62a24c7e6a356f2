"""Disks out of a stranger's archive: a member that is the content of one, taken out piece by piece without its zeros.

LXD packs a disk with all its zeros, tar with `--sparse` as a map of what is not zero in front of that (the pax format 1.0, which
GNU tar, libarchive and Go read). No program runs on what is read here, so nothing but the one file can come of it.
"""

from __future__ import annotations

import dataclasses
import os
from array import array
from collections.abc import Iterator
from pathlib import Path

from atoll.domain.errors import BadRequest, HostError, NotFound, TooLarge, Unsupported
from atoll.host import archive_kind, archive_stream, archive_tar, disk_image
from atoll.host.archive_kind import Kind
from atoll.host.archive_stream import Progress
from atoll.host.archive_tar import BLOCK, Budget, Member, Source
from atoll.host.threads import in_thread

_STREAM_BYTES = 1 << 50
"""Zeros count for nothing, so that only time limits the stream."""
_MAP_BYTES = 32 << 20


async def extract(path: Path, name: str, folder: Path, budget: Budget, progress: Progress | None = None) -> None:
    """Make the disk in `folder` like the member of that name; if there is none yet, a new one. `budget.bytes` is for what is not
    zero and not there already. NotFound if there is no such member, BadRequest for a broken or crafted archive."""
    kind = await in_thread(archive_kind.identify, path)
    if kind in (Kind.SQUASHFS, Kind.QCOW2):
        raise Unsupported("A disk can only be taken out of a tar archive")
    stream = dataclasses.replace(budget, bytes=_STREAM_BYTES)
    async with archive_stream.time_limit(budget.seconds, "Unpacking the backup"):
        async with archive_stream.open_tar(path, kind, stream, progress=progress) as opened:
            await opened.worker.run(lambda: _extract(opened.source, name.encode(), folder, budget))


def _extract(source: Source, name: bytes, folder: Path, budget: Budget) -> None:
    for member in archive_tar.members(source, budget):
        if member.name == name:
            try:
                _fill(source, member, folder, budget)
            except OSError as error:
                raise HostError(f"Cannot unpack the backup: {error.strerror or error}") from error
            return
        for _ in source.pieces(member.padded):
            pass
    raise NotFound(f"The archive has no {archive_tar.shown(name)}")


def _fill(source: Source, member: Member, folder: Path, budget: Budget) -> None:
    if member.kind not in (b"0", b"\0"):
        raise BadRequest(f"The archive's {archive_tar.shown(member.name)} is not a plain file")
    size = member.apparent if _has_map(member) else member.stored
    if not (folder / disk_image.FILE).exists():
        disk_image.make(folder, size)
    written = at = 0
    with disk_image.opened(folder) as image:
        for position, data in _content(source, member):
            disk_image.clear(image, at, position)
            written += disk_image.write(image, position, data)
            at = position + len(data)
            if written > budget.bytes:
                raise TooLarge("The archive is larger than allowed when unpacked")
        disk_image.clear(image, at, max(at, os.fstat(image).st_size))
        os.ftruncate(image, size)
        os.fsync(image)


def _content(source: Source, member: Member) -> Iterator[tuple[int, bytes]]:
    """What is not a hole, by position."""
    parts = _map(source, member) if _has_map(member) else array("q", (0, member.stored))
    for position, length in zip(parts[::2], parts[1::2], strict=True):
        for piece in source.pieces(length):
            yield position, piece
            position += len(piece)


def _has_map(member: Member) -> bool:
    """Whether the content begins with a map. Unsupported for maps of older formats."""
    records: dict[bytes, bytes] = {}
    for header, data in zip(member.head[:-1:2], member.head[1:-1:2], strict=True):
        if header[156:157] == b"x":
            records.update(archive_tar.pax_records(data[: archive_tar.number(header[124:136])]))
    if (records.get(b"GNU.sparse.major"), records.get(b"GNU.sparse.minor")) == (b"1", b"0"):
        return True
    if any(key.startswith(b"GNU.sparse.") for key in records):
        raise Unsupported("The archive has a disk in an old format of sparse files", hint="pack it without --sparse")
    return False


def _map(source: Source, member: Member) -> array[int]:
    """Position and length, in turns, of each part that is not a hole: 16 bytes of memory for each, however many a stranger's map
    has. BadRequest for a map that is not of this member."""
    numbers = _Numbers(source)
    parts = array("q")
    end = data = 0
    count = numbers.next()
    for number in range(1, count + 1):
        start, length = numbers.next(), numbers.next()
        is_end = number == count and not length  # tar says so how long the file is
        if start < end or start + length > member.apparent or not (length or is_end):
            raise BadRequest("The archive has a malformed map of a sparse file")
        end = start + length
        data += length
        parts.extend((start, length))
    if data != member.stored - numbers.read:
        raise BadRequest("The archive has a malformed map of a sparse file")
    return parts


class _Numbers:
    """The decimal numbers, a line each, that a map consists of; they fill whole blocks. `read` counts the bytes of these."""

    def __init__(self, source: Source) -> None:
        self.read = 0
        self._source = source
        self._left = b""

    def next(self) -> int:
        """The next one."""
        while b"\n" not in self._left:
            if self.read >= _MAP_BYTES or len(self._left) > BLOCK:
                raise BadRequest("The archive has a malformed map of a sparse file, or one beyond 32 MiB")
            self._left += self._source.exactly(BLOCK)
            self.read += BLOCK
        text, _, self._left = self._left.partition(b"\n")
        return archive_tar.digits(text)
