"""`type: disk`: a folder, file or block device of the host, or a custom volume, mounted in the guest.

A source is pinned below the machine's run folder: mounted there with all that the device's keys say of it. The guest's mount is a
copy of that.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote, unquote

from atoll.config import devices
from atoll.domain.errors import AtollError, BadRequest, NotFound, Unsupported
from atoll.domain.idmap import IdMap
from atoll.domain.undo import Reverter
from atoll.drivers.device import disk_source
from atoll.drivers.device.contract import DeviceContext, Prepared, VolumeSource
from atoll.drivers.device.disk_source import SourceKind
from atoll.drivers.instance.contract import MountSpec
from atoll.host import mount_options, pins, syscalls, threads, userns
from atoll.host.pins import Manner

CLOUD_INIT = "cloud-init:config"
_TABLE = devices.device_table("disk")
_FOREIGN = ("ceph:", "cephfs:", "cloud-init:")
_LONGEST_NAME = 255
_LONGEST_PATH = 4000
"""With a digest before it, it fits into a note."""


class DiskDevice:
    """The root disk (path `/`) is the storage service's; all others are mounts."""

    live: frozenset[str] = frozenset({"size", "size.state", "limits.read", "limits.write", "limits.max"})
    hotplug = True

    def validate(self, context: DeviceContext) -> None:
        """See the contract."""
        config = context.config
        source, path = config.get("source", ""), config.get("path", "")
        if source.startswith(_FOREIGN) and source != CLOUD_INIT:
            raise Unsupported(f"Device {context.name!r}: sources of kind {source.split(':')[0]!r} are not supported")
        if is_root(config):
            return
        if not path:
            raise BadRequest(f'Device {context.name!r}: disk entry is missing the required "path" property')
        if ".." in Path(path).parts:
            raise BadRequest(f"Device {context.name!r}: path {path!r} may not contain '..'")
        if len(os.fsencode(path)) > _LONGEST_PATH or any(len(os.fsencode(part)) > _LONGEST_NAME for part in Path(path).parts):
            raise BadRequest(f"Device {context.name!r}: its path is longer than a path can be")
        if target_of(config) == ".":
            raise BadRequest(f"Device {context.name!r}: only the root disk may have the path {path!r}")
        if not config.get("pool") and source != CLOUD_INIT and not source.startswith("/"):
            raise BadRequest(f"Device {context.name!r}: source {source!r} must be an absolute path of the host")

    async def prepare(self, context: DeviceContext) -> Prepared:
        """Open and pin the source; a missing one that is not `required` gives no mount."""
        self.validate(context)
        if is_root(context.config):
            return Prepared()
        place = pin_path(context)
        async with Reverter(f"attach disk {context.name}") as undo:
            undo.add(self.release, context)
            try:
                async with _manner(context) as manner:
                    source, allowed = await _source(context)
                    kind = await disk_source.pin(source, place, note_of(context.config), manner, allowed=allowed)
            except AtollError as error:
                raise type(error)(f"Device {context.name!r}: {error.message}", hint=error.hint) from error
            if kind is None and _TABLE.flag(context.config, "required"):
                raise _missing(source, context.name)
            if kind is not None:
                undo.success()
        return Prepared() if kind is None else Prepared(mounts=(_spec(context, is_file=kind is SourceKind.FILE),))

    async def started(self, context: DeviceContext) -> None:
        """Nothing is left to do."""

    def attached(self, context: DeviceContext) -> Prepared:
        """A mount at its path; also where a missing source gave none, which does not matter to whoever unmounts."""
        return Prepared() if is_root(context.config) else Prepared(mounts=(_spec(context, is_file=False),))

    async def update(self, context: DeviceContext, old: Mapping[str, str]) -> None:
        """`size` of the root disk is the storage service's, limits of traffic are the machine's."""

    async def release(self, context: DeviceContext) -> Mapping[str, str]:
        """Let the source go."""
        await threads.in_thread(pins.unpin, pin_path(context))
        await threads.in_thread(pins.remove_folder, _seed_path(context))
        return {}


async def require_source(name: str, config: Mapping[str, str]) -> None:
    """NotFound for a path of the host that is `required` and not there: a machine would not start with it."""
    source = config.get("source", "")
    if config.get("pool") or not source.startswith("/") or not _TABLE.flag(config, "required"):
        return
    if not await threads.in_thread(os.path.exists, source):
        raise _missing(source, name)


def _missing(source: Path | str, name: str) -> NotFound:
    return NotFound(f"Missing source path {str(source)!r} for disk {name!r}")


def is_root(config: Mapping[str, str]) -> bool:
    """Whether it is the instance's root disk."""
    return config.get("path") == "/" and not config.get("source")


def target_of(config: Mapping[str, str]) -> str:
    """Where it is mounted, relative to the guest's root, in one way of writing: two disks at one place have the same."""
    return posixpath.normpath(config["path"].strip("/") or ".")


def pin_path(context: DeviceContext) -> Path:
    """Where its source is pinned; the device's name is escaped to one path segment."""
    return context.run_dir / "devices" / pins.place_name(quote(context.name, safe=""))


def note_of(config: Mapping[str, str]) -> str:
    """What is noted beside the pin of a disk: all that it is made by, as a digest, and where the machine has it."""
    fixed = sorted((key, value) for key, value in config.items() if value and key not in DiskDevice.live)
    return f"{hashlib.sha256(repr(fixed).encode()).hexdigest()[:16]} {target_of(config)}"


def strays(run_dir: Path, devices: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """By device name, where a machine has disks that are none of these devices, or were made by other keys. Blocking."""
    notes = {unquote(name): note for name, note in pins.noted(run_dir / "devices").items()}
    known = {name: note_of(devices[name]) for name in notes if devices.get(name, {}).get("type") == "disk"}
    return {name: note.partition(" ")[2] for name, note in notes.items() if known.get(name) != note}


def _seed_path(context: DeviceContext) -> Path:
    return context.run_dir / f"devices/seed.{quote(context.name, safe='')}"


async def _source(context: DeviceContext) -> tuple[Path, tuple[Path, ...] | None]:
    """Where the source is, and the folders that it may lie in (None: any)."""
    if context.config.get("pool"):
        return _volume(context).path, None
    if context.config["source"] == CLOUD_INIT:
        await threads.in_thread(pins.write_folder, _seed_path(context), context.seed)
        return _seed_path(context), None
    return Path(context.config["source"]), context.allowed_sources


def _volume(context: DeviceContext) -> VolumeSource:
    volume = context.volume
    if volume is None:
        raise NotFound(f"Storage volume {context.config['source']!r} not found")
    return volume


@asynccontextmanager
async def _manner(context: DeviceContext) -> AsyncIterator[Manner]:
    """How the device's keys want the source to be shown."""
    config = context.config
    seed = config.get("source") == CLOUD_INIT
    raw = _TABLE.text(config, "raw.mount.options")
    options = (*(raw.split(",") if raw else ()), *(("ro",) if seed or _TABLE.flag(config, "readonly") else ()))
    kind, _ = mount_options.propagation([_TABLE.text(config, "propagation")])
    manner = Manner(
        recursive=_TABLE.flag(config, "recursive"),
        options=options,
        follows=kind in (syscalls.MS_SHARED, syscalls.MS_SLAVE),
    )
    idmap = _shift_of(context)
    if idmap is None:
        yield manner
        return
    async with userns.opened(idmap) as namespace:
        yield Manner(manner.recursive, manner.options, manner.follows, namespace)


def _shift_of(context: DeviceContext) -> IdMap | None:
    """The map by which the ids of the source are shifted. Volumes have plain ids, so have cloud-init's files."""
    if context.config.get("pool"):
        return context.idmap if _volume(context).mapped else None
    wanted = context.config["source"] == CLOUD_INIT or _TABLE.flag(context.config, "shift")
    return context.idmap if wanted else None


def _spec(context: DeviceContext, *, is_file: bool) -> MountSpec:
    """The pin has what is mounted below the source if that is wanted, and it has the restrictions."""
    propagation = _TABLE.text(context.config, "propagation")
    options = ("rbind", *([propagation] if propagation else []))
    return MountSpec(context.name, str(pin_path(context)), target_of(context.config), options, is_file)
