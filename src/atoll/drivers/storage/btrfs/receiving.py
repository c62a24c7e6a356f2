"""Volumes made of `btrfs send` streams, which may come from a stranger.

A stream is a list of changes that names paths, and follows links that it made before; it also names other subvolumes to clone
from. So `btrfs receive` runs in a jail where of the whole pool only the subvolume's parent can be read, and only the place of
the new one written. What comes out is looked at before it is used: exactly one subvolume, nothing else.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from atoll.domain.errors import BadRequest, HostError, NotFound
from atoll.drivers.storage import blocking, folders
from atoll.drivers.storage.btrfs import subvolumes
from atoll.drivers.storage.btrfs.folders import SubvolumeFolders
from atoll.drivers.storage.contract import Stream, VolumeId, VolumeKind
from atoll.host import archive_sandbox, btrfs, confined
from atoll.host.archive_sandbox import Bind, Jail

NAMES_ATTRIBUTE = "trusted.atoll.received"
"""What its sender called a snapshot, and what it is called here; see `arriving`."""

_CAP_SYS_ADMIN, _CAP_MKNOD = 21, 27
_CAPABILITIES = (*archive_sandbox.OWNING, _CAP_MKNOD, _CAP_SYS_ADMIN)
_HOST_TROUBLE = ("No space left on device", "quota exceeded", "Input/output error", "Cannot allocate memory")


async def receive(
    pool: SubvolumeFolders, volume: VolumeId, source: Path, *, parent: VolumeId | None, nested: Sequence[Stream]
) -> None:
    """See the contract. Everything is received aside, put together there, and published whole."""
    await blocking.call("receive a volume", pool.require_absent, volume)
    base = await blocking.call("receive a volume", pool.require, parent) if parent is not None else None
    stage = await blocking.call("receive a volume", pool.temporary, "receive")
    try:
        top = await _receive(pool, stage, source, base)
        for part in nested:
            path = checked(part.path)
            known = base is not None and await blocking.call("receive a volume", _has_subvolume, base, path)
            below = await _receive(pool, stage, part.file, base / path if base is not None and known else None)
            await blocking.call("receive a volume", nest, below, top, path)
        await blocking.call("receive a volume", _finish, pool, top, volume, nested)
    finally:
        await blocking.call("receive a volume", pool.remove, stage)


async def _receive(pool: SubvolumeFolders, stage: Path, source: Path, base: Path | None) -> Path:
    """The one subvolume that a stream makes, writable, in a folder of its own below `stage`."""
    target, jailed = await blocking.call("receive a volume", jail, pool, stage, base)
    jailed = dataclasses.replace(jailed, binds=(*jailed.binds, Bind(source, "stream")))
    async with await archive_sandbox.start(argv(pool, target, "-f", "/stream"), jailed) as program:
        raise_failure(*await program.finish())
    return await blocking.call("receive a volume", only_subvolume, target)


def argv(pool: SubvolumeFolders, target: Path, *options: str) -> list[str]:
    """What runs in a `jail` to receive a subvolume in the folder `target`."""
    return ["btrfs", "--quiet", "receive", *options, "-m", "/pool", f"/pool/{target.relative_to(pool.root)}"]


def jail(pool: SubvolumeFolders, stage: Path, base: Path | None) -> tuple[Path, Jail]:
    """A new folder below `stage`, and a jail in which a subvolume can be received there, as a change of `base`. Blocks."""
    target, covers = stage / secrets.token_hex(4), stage / f"covers-{secrets.token_hex(4)}"
    return target, Jail(binds=_binds(pool, target, covers, base), capabilities=_CAPABILITIES)


def raise_failure(code: int, said: str) -> None:
    """BadRequest for a stream that cannot be received, HostError if the host is in trouble."""
    if code != 0:
        kind = HostError if any(words in said for words in _HOST_TROUBLE) else BadRequest
        raise kind(f"The volume cannot be received: {said[-500:] or f'exit code {code}'}")


def _binds(pool: SubvolumeFolders, target: Path, covers: Path, base: Path | None) -> list[Bind]:
    """The pool, for the kernel's look-ups by uuid; each folder of it covered by an empty one; the parent and the target."""
    target.mkdir(mode=0o700)
    binds = [Bind(pool.root, "pool")]
    shown = [target] if base is None else [target, base]
    for entry in sorted(os.listdir(pool.root)):
        if (pool.root / entry).is_symlink() or not (pool.root / entry).is_dir():
            continue
        (covers / entry).mkdir(mode=0o700, parents=True)
        for path in shown:
            if path.relative_to(pool.root).parts[0] == entry:
                (covers / path.relative_to(pool.root)).mkdir(mode=0o700, parents=True, exist_ok=True)
        binds.append(Bind(covers / entry, f"pool/{entry}"))
    if base is not None:
        binds.append(Bind(base, f"pool/{base.relative_to(pool.root)}"))
    return [*binds, Bind(target, f"pool/{target.relative_to(pool.root)}", writable=True)]


def only_subvolume(target: Path) -> Path:
    """BadRequest unless exactly one subvolume, without others in it, is there."""
    found = list(target.iterdir())
    if len(found) != 1 or not btrfs.is_subvolume(found[0]):
        raise BadRequest("The stream does not hold exactly one subvolume")
    with btrfs.opened(found[0]) as subvolume:
        if subvolumes.nested(subvolume):
            raise BadRequest("The stream holds nested subvolumes")
        if not btrfs.is_readonly(subvolume) or btrfs.identity(subvolume).received.int == 0:
            raise BadRequest("The stream ends early")
        btrfs.set_readonly(subvolume, readonly=False)
        forget_names(subvolume)  # the stream's own, or those of what it is a change of
    return found[0]


def forget_names(subvolume: int | Path) -> None:
    """Remove the attribute that says what its sender called a subvolume. A stream can bring one along: only what we have written
    there ourselves may count."""
    try:
        os.removexattr(subvolume, NAMES_ATTRIBUTE)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise


def checked(path: str) -> str:
    """The path of a nested subvolume, from the volume's own."""
    parts = path.removeprefix("/").split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise BadRequest(f"{path!r} is no path of a nested subvolume")
    return "/".join(parts)


def _has_subvolume(base: Path, path: str) -> bool:
    """Whether the parent had one there, too; no link is followed."""
    try:
        with confined.directory(base, path) as found:
            return os.fstat(found).st_ino == btrfs.ROOT_INODE
    except (BadRequest, NotFound):
        return False


def nest(below: Path, top: Path, path: str) -> None:
    """Move a subvolume to its place in another. The stranger chose the path and what is there: no link is followed."""
    folder, _, name = path.rpartition("/")
    try:
        with confined.directory(top, folder or ".") as place, confined.directory(below.parent) as origin:
            with suppress(FileNotFoundError):
                os.rmdir(name, dir_fd=place)
            os.rename(below.name, name, src_dir_fd=origin, dst_dir_fd=place)
    except (NotFound, OSError) as error:
        raise BadRequest(f"There is no place for the nested subvolume {path!r}: {error}") from error


def settle(top: Path, volume: VolumeId, nested: Mapping[str, bool]) -> None:
    """Close it to other users, and set which of its nested subvolumes are read-only: outer ones first in `nested`. BadRequest
    unless it is such a volume."""
    if volume.kind is not VolumeKind.CUSTOM:
        _require_layout(top)
        folders.close_to_guest(top)
    for path in reversed(list(nested)):
        with confined.directory(top, path) as subvolume:
            btrfs.set_readonly(subvolume, readonly=nested[path])


def _finish(pool: SubvolumeFolders, top: Path, volume: VolumeId, nested: Sequence[Stream]) -> None:
    """Publish it. What it was sent as stays with a snapshot, so that changes of it can be received; a volume is a new subvolume,
    with an identity of its own."""
    settle(top, volume, {checked(part.path): part.readonly for part in nested})
    if volume.snapshot:
        pool.publish(top, volume)
        return
    with btrfs.opened(top) as subvolume:
        made = pool.copied(subvolume)
    try:
        pool.publish(made, volume)
    except BaseException:
        pool.remove(made)
        raise
    _forget_origins(pool, volume)


def _forget_origins(pool: SubvolumeFolders, volume: VolumeId) -> None:
    """The volume comes last. Were its snapshots known as the sender's for longer, then the kernel would take changes for those of
    another volume, that the same streams are received for, to be theirs."""
    snapshots = pool.snapshots(volume)
    for name in sorted(os.listdir(snapshots)) if snapshots.is_dir() else ():
        with btrfs.opened(snapshots / name) as top:
            for subvolume in subvolumes.opened_all(top):
                if btrfs.identity(subvolume).received.int:
                    readonly = btrfs.is_readonly(subvolume)
                    btrfs.set_readonly(subvolume, readonly=False)
                    btrfs.forget_origin(subvolume)
                    btrfs.set_readonly(subvolume, readonly=readonly)


def _require_layout(top: Path) -> None:
    """An instance's volume has a directory `rootfs`, no link to one of the host's, and beside it plain files and folders."""
    try:
        with confined.directory(top, folders.ROOTFS):
            pass
    except NotFound as error:
        raise BadRequest("The stream holds no root file system of an instance") from error
    for entry in os.scandir(top):
        if entry.is_symlink() or not (entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)):
            raise BadRequest(f"The stream's {entry.name[:80]!r} is not a plain file or folder")
