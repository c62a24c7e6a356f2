"""Packs an instance or a built tree as an image: one file of metadata.yaml, rootfs/ and templates/, hashed as it is written.

The tree belongs to a guest, so tar reads it in a jail that shows nothing else. Names are sorted, ids numeric and times whole
seconds: the same tree gives the same tarball, and no member needs an extension header without a reason.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from atoll.domain import image_metadata
from atoll.domain.compression import Algorithm, Compression
from atoll.domain.errors import HostError
from atoll.domain.image_metadata import ImageMetadata
from atoll.domain.undo import Reverter
from atoll.host import archive_sandbox, archive_stream
from atoll.host.archive_sandbox import OWNING, Bind, Jail, Program
from atoll.host.archive_stream import Progress, Worker
from atoll.host.threads import in_thread

ATTRIBUTES = (
    "--numeric-owner",
    "--sparse",
    "--acls",
    "--xattrs",
    "--xattrs-include=user.*",
    "--xattrs-include=security.capability",
    "--xattrs-exclude=user.overlay.*",
    "--warning=no-file-ignored",
)
"""What tar is told of what it packs beside names, modes and content."""

_TAR = (
    "tar",
    "--create",
    "--file=-",
    "--format=posix",
    "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime,delete=mtime",
    "--sort=name",
    *ATTRIBUTES,
)

_TAR_SAW_CHANGES = 1
_CHUNK = 1 << 20
SECONDS = 6 * 3600.0
_MEMORY_BYTES = 8 << 30

_COMPRESSORS: dict[Algorithm, Sequence[str]] = {
    Algorithm.GZIP: ("gzip", "--no-name", "--stdout"),
    Algorithm.BZIP2: ("bzip2", "--stdout"),
    Algorithm.XZ: ("xz", "--threads=0", "--stdout"),
    Algorithm.LZMA: ("xz", "--format=lzma", "--stdout"),
    Algorithm.ZSTD: ("zstd", "--threads=0", "--stdout", "--quiet"),
}


@dataclass(frozen=True, slots=True)
class Packed:
    """A packed image: the SHA-256 of the file in hexadecimal (its fingerprint) and its size in bytes."""

    fingerprint: str
    size: int


async def pack_image(
    directory: Path,
    output: Path,
    metadata: ImageMetadata,
    *,
    compression: Compression,
    rootfs: Path | None = None,
    seconds: float = SECONDS,
    progress: Progress | None = None,
) -> Packed:
    """Pack `directory`'s rootfs/ (or `rootfs`, where that is elsewhere) and templates/ (if there) with that metadata into the
    new file `output`.

    `progress` hears of bytes written to `output`. A file that changes while it is read is packed as it was read. HostError,
    with no file left, if a program fails; DeadlineExceeded after `seconds`.
    """
    async with _members(directory, rootfs or directory / "rootfs", output, metadata) as members:
        if compression.algorithm is not Algorithm.SQUASHFS:
            names = [bind.name for bind in members]
            return await pack_tar(members, names, output, compression=compression, seconds=seconds, progress=progress)
        async with _new_file(output), archive_stream.time_limit(seconds, "Packing the image"):
            return await _squashfs(members, output, [bind.name for bind in members])


async def pack_tar(
    members: Sequence[Bind],
    names: Sequence[str],
    output: Path,
    *,
    compression: Compression,
    seconds: float = SECONDS,
    progress: Progress | None = None,
) -> Packed:
    """Pack what `members` show, by those names in that order, into the new file `output`: a tar file, or a squashfs, which has no
    order. For the rest see `pack_image`."""
    if compression.algorithm is Algorithm.SQUASHFS:
        async with _new_file(output), archive_stream.time_limit(seconds, "Packing"):
            return await _squashfs(members, output, sorted({name.partition("/")[0] for name in names}))
    async with _new_file(output) as file, archive_stream.time_limit(seconds, "Packing"):
        return await _tarball(members, names, file, compression, progress)


@asynccontextmanager
async def _new_file(path: Path) -> AsyncIterator[BinaryIO]:
    """A new file to fill; it is not left if the block fails."""
    async with Reverter("pack an archive") as undo:
        undo.add(in_thread, _remove, path)
        with await in_thread(_create, path) as file:
            yield file
        undo.success()


def _create(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb", buffering=0)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


@asynccontextmanager
async def _members(directory: Path, rootfs: Path, output: Path, metadata: ImageMetadata) -> AsyncIterator[Sequence[Bind]]:
    """What stands at the top of the image, metadata.yaml first; that file is beside `output` for as long as it takes."""
    text = output.with_name(f".{output.name}.metadata.yaml")
    templates = directory / "templates"
    try:
        await in_thread(_write_metadata, text, metadata)
        binds = [Bind(text, "metadata.yaml"), Bind(rootfs, "rootfs")]
        yield [*binds, Bind(templates, "templates")] if await in_thread(templates.is_dir) else binds
    finally:
        await in_thread(_remove, text)


def _write_metadata(path: Path, metadata: ImageMetadata) -> None:
    path.write_bytes(image_metadata.dump(metadata))
    path.chmod(0o644)
    os.utime(path, (metadata.creation_date, metadata.creation_date))


async def _tarball(
    members: Sequence[Bind], names: Sequence[str], file: BinaryIO, compression: Compression, progress: Progress | None
) -> Packed:
    """tar, then a compressor unless there is none, then a thread that hashes and writes."""
    writer = _HashingWriter(file)
    worker = Worker(progress, lambda: writer.size)
    async with AsyncExitStack() as stack:
        packed_end, sink = archive_stream.pipe()
        stack.enter_context(packed_end)
        stack.enter_context(sink)
        stack.push_async_callback(worker.settle)
        programs: list[Program] = []
        if compression.algorithm is not Algorithm.NONE:
            compressor, sink = await _compressor(stack, compression, sink)
            programs.append(compressor)
        argv = [*_TAR, *names]
        tar = await archive_sandbox.start(argv, Jail(members, capabilities=OWNING), stdout=sink)
        programs.append(await stack.enter_async_context(tar))
        sink.close()  # so that the end of tar is the end of the stream
        await worker.run(lambda: writer.copy(packed_end))
        for program in programs:
            code, said = await program.finish()
            if code and not (program is tar and code == _TAR_SAW_CHANGES):
                raise HostError(f"The archive cannot be packed: {program.name}: {said[-500:]}")
        return await in_thread(writer.finish)


async def _compressor(stack: AsyncExitStack, compression: Compression, sink: BinaryIO) -> tuple[Program, BinaryIO]:
    """Start the compressor in front of a sink, which is closed here; returns it and the sink in front of it."""
    read_end, write_end = archive_stream.pipe()
    stack.enter_context(write_end)
    with read_end, sink:
        argv = [*_COMPRESSORS[compression.algorithm], *compression.options]
        program = await archive_sandbox.start(argv, Jail(memory_bytes=_MEMORY_BYTES), stdin=read_end, stdout=sink)
    return await stack.enter_async_context(program), write_end


class _HashingWriter:
    """Copies a stream to a file with its hash. `size` may be read from another thread meanwhile."""

    def __init__(self, file: BinaryIO) -> None:
        self.size = 0
        self._file = file
        self._hash = hashlib.sha256()

    def copy(self, stream: BinaryIO) -> None:
        """All of it, until its end. Blocking."""
        while chunk := stream.read(_CHUNK):
            self._hash.update(chunk)
            self._file.write(chunk)
            self.size += len(chunk)

    def finish(self) -> Packed:
        """Make the file durable. Blocking."""
        os.fsync(self._file.fileno())
        return Packed(self._hash.hexdigest(), self.size)


async def _squashfs(members: Sequence[Bind], output: Path, tops: Sequence[str]) -> Packed:
    """What is at the top as a squashfs file system, which is hashed afterwards: its writer goes back and forth."""
    jail = Jail([*members, Bind(output, "image", writable=True)], capabilities=OWNING, memory_bytes=_MEMORY_BYTES)
    argv = ["mksquashfs", *tops, "/image", "-keep-as-directory", "-noappend", "-no-progress", "-quiet", "-comp", "zstd"]
    async with await archive_sandbox.start(argv, jail) as program:
        code, said = await program.finish()
    if code:
        raise HostError(f"The image cannot be packed: mksquashfs: {said[-500:]}")
    return Packed(await in_thread(_hash, [output]), (await in_thread(output.stat)).st_size)


async def hash_files(paths: Sequence[Path]) -> str:
    """The SHA-256 of the files' bytes one after the other: an image's fingerprint, of its file or of (metadata, rootfs)."""
    return await in_thread(_hash, paths)


def _hash(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
