"""Unpacks an image, which comes from a stranger, into an empty directory.

Three walls, one behind the other: the reader of the headers passes on nothing that does not belong (`archive_tar`), tar and
unsquashfs run where there is nothing but the target (`archive_jail`), and what they leave is looked at before it is used
(`archive_check`). A failed unpack leaves the target as empty as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from atoll.domain.errors import BadRequest, Unsupported
from atoll.domain.image_metadata import ImageMetadata
from atoll.domain.undo import Reverter
from atoll.host import archive_check, archive_kind, archive_sandbox, archive_squashfs, archive_stream, archive_tar, process
from atoll.host.archive_kind import Kind
from atoll.host.archive_sandbox import OWNING, Bind, Jail
from atoll.host.archive_stream import Progress
from atoll.host.archive_tar import Budget, Filter, Layout
from atoll.host.threads import in_thread

TAR = (
    "tar",
    "--extract",
    "--file=-",
    "--blocking-factor=256",
    "--preserve-permissions",
    "--same-owner",
    "--numeric-owner",
    "--acls",
    "--xattrs",
    "--xattrs-include=user.*",
    "--xattrs-include=security.capability",
    "--xattrs-include=system.posix_acl_*",
    "--xattrs-exclude=user.overlay.*",
    "--restrict",
    "--warning=no-timestamp",
    "--warning=no-unknown-keyword",
)

_EMPTY_SECONDS = 600.0


async def unpack_image(
    meta: Path, rootfs: Path | None, target: Path, *, budget: Budget | None = None, progress: Progress | None = None
) -> ImageMetadata:
    """Unpack a unified image (`rootfs` None) or a split one into `target`, which is empty or holds an empty `rootfs/`.

    Leaves metadata.yaml, rootfs/ and perhaps templates/ with the archive's own ids, and returns what metadata.yaml says.
    Device nodes and the content of /dev are left out. BadRequest for a broken or crafted archive, TooLarge beyond the
    budget, DeadlineExceeded after its time, HostError if the host has no room.
    """
    budget = budget or Budget()
    async with Reverter("unpack image", step_seconds=_EMPTY_SECONDS) as undo:
        undo.add(empty, target)
        async with archive_stream.time_limit(budget.seconds, "Unpacking the image"):
            if rootfs is None:
                await _unpack(meta, Layout.UNIFIED, target, budget, progress)
            else:
                await _unpack(meta, Layout.METADATA, target, budget, progress)
                await _unpack(rootfs, Layout.ROOTFS, await in_thread(_rootfs_of, target), budget, _after(meta, progress))
            metadata = await in_thread(archive_check.settle, target)
        undo.success()
    return metadata


def _rootfs_of(target: Path) -> Path:
    folder = target / "rootfs"
    folder.mkdir(exist_ok=True)
    return folder


def _after(first: Path, progress: Progress | None) -> Progress | None:
    """Progress over the second file continues where the first ended."""
    if progress is None:
        return None
    size, report = first.stat().st_size, progress
    return lambda read: report(size + read)


async def empty(target: Path) -> None:
    """Remove all that was unpacked, except for an empty `rootfs/`. The tree may be as deep or wide as a stranger likes."""
    names = [str(path) for path in await in_thread(lambda: list(target.iterdir()))]
    if names:
        await process.run(["rm", "-rf", "--one-file-system", "--", *names], timeout=_EMPTY_SECONDS)
    await in_thread(_rootfs_of, target)


async def _unpack(path: Path, layout: Layout, target: Path, budget: Budget, progress: Progress | None) -> None:
    kind = await in_thread(archive_kind.identify, path)
    if kind is Kind.QCOW2:
        raise Unsupported("The image is one of a virtual machine")
    if kind is not Kind.SQUASHFS:
        await unpack_tar(path, kind, archive_tar.Rules(layout), target, budget, progress)
    elif layout is Layout.METADATA:
        raise BadRequest("The metadata part of an image must be a tar archive")
    else:
        await archive_squashfs.unpack(path, layout, target, budget)


async def unpack_tar(
    path: Path,
    kind: Kind,
    rules: Filter,
    target: Path,
    budget: Budget,
    progress: Progress | None = None,
    *,
    strip: int = 0,
    rewrite: Callable[[Sequence[bytes]], Sequence[bytes]] | None = None,
) -> None:
    """What the rules let through, into a folder: without the first `strip` parts of the names, heads rewritten by that function.
    What a failure leaves is the caller's to remove."""
    jail = Jail([Bind(target, "work", writable=True)], cwd="/work", capabilities=OWNING, file_bytes=budget.file_bytes)
    read_end, write_end = archive_stream.pipe()

    def pump() -> None:
        with write_end:
            archive_tar.filter_stream(archive.source, rules, budget, write_end.write, rewrite=rewrite)

    with write_end, read_end:
        async with archive_stream.open_tar(path, kind, budget, progress=progress) as archive:
            async with await archive_sandbox.start([*TAR, f"--strip-components={strip}"], jail, stdin=read_end) as tar:
                read_end.close()  # so that a tar that ends is noticed
                try:
                    await archive.worker.run(pump)
                except BrokenPipeError:
                    pass  # tar has given up: its own words follow
                else:
                    await archive.verify()
                archive_sandbox.raise_failure(*await tar.finish())
