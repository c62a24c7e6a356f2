"""`type: disk`: a folder, file or block device of the host, or a custom volume, mounted in the guest.

A source on the host is opened once, looked at through that descriptor, and bound to a place of our own below the machine's
run folder, which is what the guest's mount is made from. A path that is swapped afterwards, by whoever may write to one of its
folders, changes nothing any more.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import quote

from atoll.config import devices
from atoll.domain.errors import BadRequest, Forbidden, HostError, NotFound, Unsupported
from atoll.domain.undo import Reverter
from atoll.drivers.device.contract import DeviceContext, Prepared
from atoll.drivers.instance.contract import MountSpec
from atoll.host import mount, process, syscalls, threads

_TABLE = devices.device_table("disk")
_CONFINED = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_MAGICLINKS
_FOREIGN = ("ceph:", "cephfs:", "cloud-init:")


class SourceKind(StrEnum):
    """What a path of the host is, as far as mounting it goes."""

    FOLDER = "folder"
    FILE = "file"
    BLOCK = "block"


@dataclass(frozen=True, slots=True)
class Pinned:
    """A source of the host at its place of our own."""

    path: Path
    kind: SourceKind


class DiskDevice:
    """The root disk (path `/`) is the storage service's; all others are mounts."""

    live: frozenset[str] = frozenset({"size", "limits.read", "limits.write", "limits.max"})
    hotplug = True

    def validate(self, context: DeviceContext) -> None:
        """See the contract."""
        config = context.config
        if config.get("source", "").startswith(_FOREIGN):
            raise Unsupported(f"Device {context.name!r}: sources of kind {config['source'].split(':')[0]!r} are not supported")
        if is_root(config):
            return
        if not config.get("path"):
            raise BadRequest(f'Device {context.name!r}: disk entry is missing the required "path" property')
        if ".." in Path(config["path"]).parts:
            raise BadRequest(f"Device {context.name!r}: path {config['path']!r} may not contain '..'")
        if not config.get("pool") and not config.get("source", "").startswith("/"):
            raise BadRequest(f"Device {context.name!r}: source {config.get('source', '')!r} must be an absolute path of the host")

    async def prepare(self, context: DeviceContext) -> Prepared:
        """Open and pin the source; a missing one that is not `required` gives no mount."""
        self.validate(context)
        if is_root(context.config):
            return Prepared()
        if context.config.get("pool"):
            pinned, shift = await self._pin(context, _volume(context), allowed=None), True
        else:
            pinned = await self._pin(context, Path(context.config["source"]), allowed=context.allowed_sources)
            shift = _TABLE.flag(context.config, "shift")
        if pinned is None:
            return Prepared()
        shift = shift and not context.privileged
        return Prepared(mounts=(_spec(context, pinned.path, is_file=pinned.kind is SourceKind.FILE, idmapped=shift),))

    async def started(self, context: DeviceContext) -> None:
        """Nothing is left to do."""

    def attached(self, context: DeviceContext) -> Prepared:
        """A mount at its path; also where a missing source gave none, which does not matter to who unmounts."""
        if is_root(context.config):
            return Prepared()
        return Prepared(mounts=(_spec(context, pin_path(context), is_file=False, idmapped=False),))

    async def update(self, context: DeviceContext, old: Mapping[str, str]) -> None:
        """`size` of the root disk is the storage service's, limits of traffic are the machine's."""

    async def release(self, context: DeviceContext) -> Mapping[str, str]:
        """Let the source go."""
        await threads.in_thread(_unpin, pin_path(context))
        return {}

    async def _pin(self, context: DeviceContext, source: Path, *, allowed: tuple[Path, ...] | None) -> Pinned | None:
        place = pin_path(context)
        async with Reverter(f"attach disk {context.name}") as undo:
            undo.add(threads.in_thread, _unpin, place)
            recursive = _TABLE.flag(context.config, "recursive")
            kind = await threads.in_thread(_bind, source, place, allowed, recursive=recursive)
            if kind is None and _TABLE.flag(context.config, "required"):
                raise NotFound(f"Missing source path {str(source)!r} for disk {context.name!r}")
            if kind is SourceKind.BLOCK:
                await _mount_block(context, place)
            if kind is not None:
                undo.success()
        return None if kind is None else Pinned(place, kind)


def is_root(config: Mapping[str, str]) -> bool:
    """Whether it is the instance's root disk."""
    return config.get("path") == "/" and not config.get("source")


def pin_path(context: DeviceContext) -> Path:
    """Where a source of the host is bound to; the device's name is escaped to one path segment."""
    return context.run_dir / "devices" / f"disk.{quote(context.name, safe='')}"


def _volume(context: DeviceContext) -> Path:
    """A custom volume's folder, which only the host's root can reach. It has plain ids: a machine gets it shifted by its map."""
    key = f"{context.config['pool']}/{context.config['source']}"
    data = context.volumes.get(key)
    if data is None:
        raise NotFound(f"Storage volume {key!r} of disk {context.name!r} not found")
    return data


def _spec(context: DeviceContext, source: Path, *, is_file: bool, idmapped: bool) -> MountSpec:
    config = context.config
    raw = _TABLE.text(config, "raw.mount.options")
    options = [
        "rbind" if _TABLE.flag(config, "recursive") else "bind",
        *(["ro"] if _TABLE.flag(config, "readonly") else []),
        *([propagation] if (propagation := _TABLE.text(config, "propagation")) else []),
        *(raw.split(",") if raw else []),
    ]
    target = config["path"].strip("/")
    return MountSpec(context.name, str(source), target, options=tuple(options), is_file=is_file, idmapped=idmapped)


def _bind(source: Path, place: Path, allowed: tuple[Path, ...] | None, *, recursive: bool) -> SourceKind | None:
    """Bind what `source` is now to `place` (for a block device only make the folder); None if there is nothing."""
    try:
        descriptor = _open(source, allowed)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise HostError(f"Cannot open disk source {str(source)!r}: {error.strerror}") from error
    try:
        kind = _kind(source, os.fstat(descriptor).st_mode)
        _unpin(place)
        # Searchable: the guest's root, nobody on the host, resolves this path when it mounts from here.
        place.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        if kind is SourceKind.FILE:
            place.touch(mode=0o600)
        else:
            place.mkdir(mode=0o700)
        if kind is not SourceKind.BLOCK:
            mount.bind(Path(f"/proc/self/fd/{descriptor}"), place, recursive=recursive)
        return kind
    finally:
        os.close(descriptor)


def _open(source: Path, allowed: tuple[Path, ...] | None) -> int:
    """An O_PATH descriptor of the source. Where only some folders are allowed, no link may lead out of the one it lies in."""
    if allowed is None:
        return os.open(source, os.O_PATH | os.O_CLOEXEC)
    root = next((folder for folder in allowed if source.is_relative_to(folder)), None)
    if root is None:
        raise Forbidden(f"Disk source path {str(source)!r} is not allowed")
    parent = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        inside = str(source.relative_to(root))
        return syscalls.openat2(parent, inside, os.O_PATH, resolve=_CONFINED)
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.ELOOP):
            raise Forbidden(f"Disk source path {str(source)!r} leads out of {root}") from error
        raise
    finally:
        os.close(parent)


def _kind(source: Path, mode: int) -> SourceKind:
    if stat.S_ISDIR(mode):
        return SourceKind.FOLDER
    if stat.S_ISBLK(mode):
        return SourceKind.BLOCK
    if stat.S_ISREG(mode) or stat.S_ISSOCK(mode):
        return SourceKind.FILE
    raise BadRequest(f"Disk source {str(source)!r} is neither a folder, a file nor a block device")


async def _mount_block(context: DeviceContext, place: Path) -> None:
    """Mounted on the host by mount(8), which finds the file system out; the guest gets a bind of it."""
    raw = _TABLE.text(context.config, "raw.mount.options")
    readonly = ["ro"] if _TABLE.flag(context.config, "readonly") else []
    options = ",".join([*readonly, *(raw.split(",") if raw else [])])
    await process.run(["mount", *(["-o", options] if options else []), "--", context.config["source"], str(place)])


def _unpin(place: Path) -> None:
    """Unmount and remove the place, whatever of it is there."""
    mount.unmount(place, lazy=True)
    try:
        if place.is_dir():
            place.rmdir()
        else:
            place.unlink(missing_ok=True)
    except OSError as error:
        raise HostError(f"Cannot remove {place}: {error.strerror}") from error
