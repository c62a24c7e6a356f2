"""A volume as `btrfs send` streams: one of the volume and one of each subvolume nested in it, as LXD writes them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from atoll.domain.errors import AtollError, HostError
from atoll.drivers.storage import blocking
from atoll.drivers.storage.btrfs import subvolumes
from atoll.drivers.storage.btrfs.folders import SubvolumeFolders
from atoll.drivers.storage.contract import Stream, VolumeId
from atoll.drivers.storage.subvolume_streams import Part, Sink
from atoll.host import btrfs, confined, process, program_streams
from atoll.host.archive_sandbox import Program

_SECONDS = 6 * 3600.0


async def send(pool: SubvolumeFolders, volume: VolumeId, target: Path, *, parent: VolumeId | None) -> list[Stream]:
    """See the contract.

    A nested subvolume is sent as a change of that in the parent only if that is read-only there, for only then it was sent as
    itself, and the receiver knows it.
    """
    base = await blocking.call("send a volume", pool.require, parent) if parent is not None else None
    async with at_rest(pool, volume) as parts:
        return [await _send(part, await blocking.call("send a volume", _base_of, part, base), target) for part in parts]


@asynccontextmanager
async def at_rest(pool: SubvolumeFolders, volume: VolumeId) -> AsyncIterator[list[Part]]:
    """See `subvolume_streams`. Only what is read-only can be sent: of all else there is a copy, while the block runs."""
    copy: Path | None = None
    try:
        data = await blocking.call("send a volume", pool.require, volume)
        if not volume.snapshot or await blocking.call("send a volume", _has_writable, data):
            copy = await blocking.call("send a volume", _sealed, pool, data)
        yield await blocking.call("send a volume", _parts, data, copy, frozen=bool(volume.snapshot))
    finally:
        if copy is not None:
            await blocking.call("send a volume", pool.remove, copy)


async def stream(part: Part, base: Part | None, sink: Sink) -> None:
    """See `subvolume_streams`."""
    origin = ["-p", str(base.place)] if base is not None else []
    argv = ["btrfs", "--quiet", "send", *origin, str(part.place)]

    async def start(writer: int) -> Program:
        return Program("btrfs", await process.start(argv, stdout=writer))

    code, said = await program_streams.pour(start, sink)
    if code:
        raise HostError(f"The volume cannot be sent: {said[-500:] or f'exit code {code}'}")


def _has_writable(data: Path) -> bool:
    with btrfs.opened(data) as subvolume:
        return any(not readonly for _, readonly in subvolumes.walk(subvolume))


def _sealed(pool: SubvolumeFolders, data: Path) -> Path:
    with btrfs.opened(data) as subvolume:
        return pool.copied(subvolume, sealed=True)


def _parts(data: Path, copy: Path | None, *, frozen: bool) -> list[Part]:
    """`frozen`: the volume is a snapshot; what is read-only in it is sent as itself, so that later ones can be its changes.
    A volume that is not may change meanwhile: only its copy is looked at, but for which subvolumes are read-only in it."""
    still = data if copy is None else copy
    with btrfs.opened(still) as subvolume:
        paths = [path for path, _ in subvolumes.walk(subvolume)]
    parts = [_part("", data if frozen else still, readonly=frozen)]
    for path in paths:
        readonly = _is_frozen(data, path)
        parts.append(_part(path, (data if frozen and readonly else still) / path, readonly=readonly))
    return parts


def _part(path: str, place: Path, *, readonly: bool) -> Part:
    with btrfs.opened(place) as subvolume:
        identity = btrfs.identity(subvolume)
    return Part(f"/{path}", readonly, identity.received if identity.received.int else identity.own, place)


def _base_of(part: Part, base: Path | None) -> Path | None:
    path = part.path.strip("/")
    return base / path if base is not None and (not path or _is_frozen(base, path)) else None


def _is_frozen(data: Path, path: str) -> bool:
    """Whether a read-only subvolume is at that path of a volume."""
    try:
        with confined.directory(data, path) as found:
            return os.fstat(found).st_ino == btrfs.ROOT_INODE and btrfs.is_readonly(found)
    except (AtollError, OSError):  # whatever else a guest has there
        return False


async def _send(part: Part, base: Path | None, target: Path) -> Stream:
    name = encoded(part.path.strip("/"))
    file = target if not name else target.with_name(f"{target.stem}_{name}{target.suffix}")
    origin = ["-p", str(base)] if base is not None else []
    await process.run(["btrfs", "send", "--quiet", *origin, "-f", str(file), str(part.place)], timeout=_SECONDS)
    return Stream(part.path, part.readonly, file, str(part.uuid))


def encoded(path: str) -> str:
    """A path as part of a file's name, as LXD writes it: `-` doubled, then `/` as `-`."""
    return path.replace("-", "--").replace("/", "-")
