"""A volume as `btrfs send` streams: one of the volume and one of each subvolume nested in it, as LXD writes them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from atoll.domain.errors import AtollError
from atoll.drivers.storage import blocking
from atoll.drivers.storage.btrfs import subvolumes
from atoll.drivers.storage.btrfs.folders import SubvolumeFolders
from atoll.drivers.storage.contract import Stream, VolumeId
from atoll.host import btrfs, confined, process

_SECONDS = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class _Part:
    """A subvolume to send: its path in the volume ("" for the volume itself), where it can be read from, read-only and at
    rest, whether it is read-only in the volume, and what it can be sent as a change of."""

    path: str
    place: Path
    readonly: bool
    base: Path | None


async def send(pool: SubvolumeFolders, volume: VolumeId, target: Path, *, parent: VolumeId | None) -> list[Stream]:
    """See the contract.

    Only what is read-only can be sent: of all else a copy is sent, made for it. A nested subvolume is sent as a change of that
    in the parent only if that is read-only there, for only then it was sent as itself, and the receiver knows it.
    """
    copy: Path | None = None
    try:
        data = await blocking.call("send a volume", pool.require, volume)
        base = await blocking.call("send a volume", pool.require, parent) if parent is not None else None
        if not volume.snapshot or await blocking.call("send a volume", _has_writable, data):
            copy = await blocking.call("send a volume", _sealed, pool, data)
        parts = await blocking.call("send a volume", _parts, data, copy, base, frozen=bool(volume.snapshot))
        return [await _send(part, target) for part in parts]
    finally:
        if copy is not None:
            await blocking.call("send a volume", pool.remove, copy)


def _has_writable(data: Path) -> bool:
    with btrfs.opened(data) as subvolume:
        return any(not readonly for _, readonly in subvolumes.walk(subvolume))


def _sealed(pool: SubvolumeFolders, data: Path) -> Path:
    with btrfs.opened(data) as subvolume:
        return pool.copied(subvolume, sealed=True)


def _parts(data: Path, copy: Path | None, base: Path | None, *, frozen: bool) -> list[_Part]:
    """`frozen`: the volume is a snapshot; what is read-only in it is sent as itself, so that later ones can be its changes.
    A volume that is not may change meanwhile: only its copy is looked at, but for which subvolumes are read-only in it."""
    still = data if copy is None else copy
    with btrfs.opened(still) as subvolume:
        paths = [path for path, _ in subvolumes.walk(subvolume)]
    parts = [_Part("", data if frozen else still, frozen, base)]
    for path in paths:
        readonly = _is_frozen(data, path)
        place = (data if frozen and readonly else still) / path
        parts.append(_Part(path, place, readonly, base / path if base is not None and _is_frozen(base, path) else None))
    return parts


def _is_frozen(data: Path, path: str) -> bool:
    """Whether a read-only subvolume is at that path of a volume."""
    try:
        with confined.directory(data, path) as found:
            return os.fstat(found).st_ino == btrfs.ROOT_INODE and btrfs.is_readonly(found)
    except (AtollError, OSError):  # whatever else a guest has there
        return False


async def _send(part: _Part, target: Path) -> Stream:
    file = target if not part.path else target.with_name(f"{target.stem}_{encoded(part.path)}{target.suffix}")
    base = ["-p", str(part.base)] if part.base is not None else []
    await process.run(["btrfs", "send", "--quiet", *base, "-f", str(file), str(part.place)], timeout=_SECONDS)
    return await blocking.call("send a volume", _described, part, file)


def _described(part: _Part, file: Path) -> Stream:
    with btrfs.opened(part.place) as subvolume:
        return Stream(f"/{part.path}", part.readonly, file, str(btrfs.identity(subvolume).own))


def encoded(path: str) -> str:
    """A path as part of a file's name, as LXD writes it: `-` doubled, then `/` as `-`."""
    return path.replace("-", "--").replace("/", "-")
