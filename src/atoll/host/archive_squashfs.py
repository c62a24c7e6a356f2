"""Squashfs images: looking into them, unpacking them, and making one of a tar stream; always by the tools in a jail.

A squashfs is never mounted: the kernel's reader is not made for file systems of strangers.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import BinaryIO

from atoll.domain.errors import BadRequest, TooLarge
from atoll.host import archive_sandbox, archive_stream
from atoll.host.archive_sandbox import OWNING, Bind, Jail
from atoll.host.archive_tar import MAX_DEPTH, Budget, Layout
from atoll.host.threads import in_thread

_IMAGE = "/image"
_NON_FATAL = 2
_LEFT_OUT = re.compile(r"create_inode: failed to create (?:character|block) device |write_xattr: failed to write xattr ")
_MEMORY_BYTES = 4 << 30
_LINE = re.compile(rb"([-bcdlps])[-rwxsStT]{9} \S+\s+([0-9]+) ")
_PARTS = ("metadata.yaml", "rootfs", "templates")


async def unpack(path: Path, layout: Layout, target: Path, budget: Budget) -> None:
    """Unpack a root file system or a whole image. Device nodes cannot come into being: the jail lacks the right to make them."""
    await _measure(path, budget)
    parts = _PARTS if layout is Layout.UNIFIED else ()
    status = await in_thread(target.stat)
    binds = [Bind(path, "image"), Bind(target, "work", writable=True)]
    jail = Jail(binds, capabilities=OWNING, memory_bytes=_MEMORY_BYTES, file_bytes=budget.file_bytes)
    argv = ["unsquashfs", "-force", "-no-progress", "-processors", "2", "-dest", "/work", "-no-wildcards", _IMAGE, *parts]
    async with await archive_sandbox.start(argv, jail) as program:
        code, said = await program.finish()
    if code != _NON_FATAL or not all(_LEFT_OUT.match(line) for line in said.splitlines() if line):
        archive_sandbox.raise_failure(code, said)
    if layout is Layout.UNIFIED:  # the archive's top is no part of the image
        await in_thread(target.chmod, status.st_mode & 0o7777)


async def _measure(path: Path, budget: Budget) -> None:
    """TooLarge for an image beyond the budget, as its own listing has it; links are counted each time."""
    if await in_thread(_inodes, path) > budget.entries:
        raise TooLarge(f"The image has more than {budget.entries} files")
    read_end, write_end = archive_stream.pipe()
    with read_end, write_end:
        jail = Jail([Bind(path, "image")], memory_bytes=_MEMORY_BYTES)
        argv = ["unsquashfs", "-lln", "-dest", "", _IMAGE]
        async with await archive_sandbox.start(argv, jail, stdout=write_end) as program:
            write_end.close()
            worker = archive_stream.Worker(None, lambda: 0)
            try:
                await worker.run(lambda: _sum_listing(read_end, budget))
                archive_sandbox.raise_failure(*await program.finish())
            finally:
                program.kill()
                await worker.settle()


def _inodes(path: Path) -> int:
    """The number of inodes that the superblock states."""
    with path.open("rb") as file:
        head = file.read(8)
    if len(head) < 8:
        raise BadRequest("The image's squashfs is truncated")
    number: int = struct.unpack("<I", head[4:])[0]
    return number


def _sum_listing(listing: BinaryIO, budget: Budget) -> None:
    """Add up `unsquashfs -lln`. A newline in a name can only add lines that look like files, never hide one."""
    total = 0
    for entries, line in enumerate(listing, 1):
        match = _LINE.match(line)
        if match is not None and match[1] == b"-":
            total += int(match[2])
        if entries > budget.entries or total > budget.bytes:
            raise TooLarge("The image is larger than allowed when unpacked")
        if line.count(b"/") > 2 * MAX_DEPTH:
            raise BadRequest("The image's squashfs has a path that is too deep")


async def read_member(path: Path, name: str, *, limit: int) -> bytes | None:
    """The content of a file of a squashfs, None if it has none of that name. TooLarge beyond `limit` bytes."""
    read_end, write_end = archive_stream.pipe()
    with read_end, write_end:
        jail = Jail([Bind(path, "image")], memory_bytes=_MEMORY_BYTES)
        argv = ["unsquashfs", "-no-wildcards", "-cat", _IMAGE, name]
        async with await archive_sandbox.start(argv, jail, stdout=write_end) as program:
            write_end.close()
            worker = archive_stream.Worker(None, lambda: 0)
            try:
                data = await worker.run(lambda: read_end.read(limit + 1))
            except BaseException:
                program.kill()
                await worker.settle()
                raise
            if len(data) > limit:
                raise TooLarge(f"The image's {name} is larger than {limit} bytes")
            code, _ = await program.finish()
    return data if code == 0 else None
