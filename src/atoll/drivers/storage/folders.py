"""Pools that are folders of the host: the layout on disk, which is LXD's, and how things appear and vanish in it atomically.

    containers/KEY/                     0711, the volumes below 0100 (owned by the guest's root while mounted)
    containers-snapshots/KEY/SNAPSHOT/  0711
    images/FINGERPRINT/                 0700
    custom/KEY/, custom-snapshots/KEY/SNAPSHOT/   0700
    .aside/                             0700: half-made and half-deleted things and private mount points. Whatever is in it when
                                        the daemon starts is rubbish.
    .renames/                           0700: what was renamed since the last audit, see `Folders.rename`

Volumes hold plain ids, so set-uid files of a guest's root are set-uid root on the host: no path to them may be open to
other users of the host, which the modes see to.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from atoll.domain.errors import Conflict, NotFound
from atoll.drivers.storage.contract import Pool, VolumeId, VolumeKind
from atoll.host import confined, mount, syscalls

FOLDERS = {
    "containers": 0o711,
    "containers-snapshots": 0o711,
    "images": 0o700,
    "custom": 0o700,
    "custom-snapshots": 0o700,
    ".aside": 0o700,
    ".renames": 0o700,
}
CLOSED = 0o100
ROOTFS = "rootfs"


class Folders:
    """One pool's folders. All methods but `data`, `snapshots` and `making` block. `remover` removes what is out of sight."""

    def __init__(self, pool: Pool, remover: Callable[[Path], None] = confined.remove_tree) -> None:
        self.root = pool.root
        self.aside = pool.root / ".aside"
        self._renames = pool.root / ".renames"
        self._remover = remover
        self._making: set[VolumeId] = set()

    def data(self, volume: VolumeId) -> Path:
        """Where the volume is."""
        if volume.snapshot:
            return self.snapshots(volume.parent) / volume.snapshot
        return self.root / volume.kind.folder / volume.key

    def snapshots(self, volume: VolumeId) -> Path:
        """Where the volume's snapshots are."""
        return self.root / f"{volume.kind.folder}-snapshots" / volume.key

    def make(self) -> None:
        """Make the folders that are missing, and set all modes."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o711)
        for name, mode in FOLDERS.items():
            (self.root / name).mkdir(exist_ok=True)
            (self.root / name).chmod(mode)

    def require(self, volume: VolumeId) -> Path:
        """The folder of a volume that exists; else NotFound."""
        data = self.data(volume)
        if not data.is_dir():
            raise NotFound(f"Storage volume {label(volume)} does not exist")
        return data

    def require_absent(self, volume: VolumeId) -> None:
        """Conflict if the volume exists."""
        if os.path.lexists(self.data(volume)):
            raise Conflict(f"Storage volume {label(volume)} already exists")

    @contextmanager
    def making(self, volume: VolumeId) -> Iterator[None]:
        """Conflict if the same volume is being made already. Does not block; used on the event loop only."""
        if volume in self._making:
            raise Conflict(f"Storage volume {label(volume)} is being created")
        self._making.add(volume)
        try:
            yield
        finally:
            self._making.discard(volume)

    def temporary(self, prefix: str = "tmp") -> Path:
        """A new private folder, to be filled and published, mounted on, or discarded."""
        path = self.aside / f"{prefix}-{secrets.token_hex(8)}"
        path.mkdir(mode=0o700)
        return path

    def publish(self, made: Path, volume: VolumeId) -> None:
        """Put a finished folder in place, on the disk for good, or leave it. Conflict if the volume exists by now."""
        data = self.data(volume)
        if volume.snapshot:
            data.parent.mkdir(mode=0o700, exist_ok=True)
        if volume.kind is VolumeKind.INSTANCE:
            os.chmod(made, CLOSED)
        try:
            rename_new(made, data)
        except FileExistsError as error:
            raise Conflict(f"Storage volume {label(volume)} already exists") from error
        try:
            flush_folder(data.parent)
        except OSError:
            rename_new(data, made)
            raise

    def publish_snapshots(self, made: Path, volume: VolumeId) -> None:
        """Put a folder with finished snapshots, by their names, in place as all those of a volume; or leave it. Conflict if the
        volume has some by now."""
        place = self.snapshots(volume)
        remove_empty(place)
        try:
            rename_new(made, place)
        except FileExistsError as error:
            raise Conflict(f"Storage volume {label(volume)} has snapshots already") from error
        try:
            flush_folder(place.parent)
        except OSError:
            rename_new(place, made)
            raise

    def withdraw_snapshots(self, volume: VolumeId) -> Path | None:
        """`withdraw` for all snapshots of a volume."""
        return self.withdraw(self.snapshots(volume))

    def exchange(self, made: Path, volume: VolumeId) -> None:
        """Put a finished folder in the place of the volume's present one, which is then where the new one was; or leave both."""
        data = self.data(volume)
        exchange(made, data)
        try:
            flush_folder(data.parent)
        except OSError:
            exchange(made, data)
            raise

    def remove(self, path: Path) -> None:
        """Remove what was made aside or taken out of sight; nothing wrong if it is not there."""
        self._remover(path)

    def withdraw(self, path: Path) -> Path | None:
        """Take a folder out of sight in one step; returns where it is now, to be removed. None if it is not there."""
        target = self.aside / f"deleting-{secrets.token_hex(8)}"
        try:
            os.rename(path, target)
        except FileNotFoundError:
            return None
        return target

    def withdraw_volume(self, volume: VolumeId) -> Path | None:
        """`withdraw` for a volume or snapshot, with the then empty folder of its snapshots."""
        gone = self.withdraw(self.data(volume))
        remove_empty(self.snapshots(volume.parent))
        return gone

    def withdraw_volumes(self, volumes: Sequence[VolumeId]) -> list[Path]:
        """`withdraw_volume` for each; returns what is to be removed."""
        gone = [self.withdraw_volume(volume) for volume in volumes]
        return [path for path in gone if path is not None]

    def rename(self, volume: VolumeId, target: VolumeId) -> None:
        """Rename a volume with its snapshots, or a snapshot.

        That is two steps on disk and a third in the database. A note of it is written first and stays until the next
        audit, which asks the database which of the names is the volume's, and moves what stands under the other.
        """
        self.require(volume)
        self.require_absent(target)
        for note, (old, new) in self._notes():
            if {old, new} & {volume, target}:
                note.unlink()
        content = json.dumps([_fields(volume), _fields(target)]).encode()
        confined.write(self._renames, secrets.token_hex(8), content)
        self._move(volume, target)

    def _move(self, volume: VolumeId, target: VolumeId) -> bool:
        """Move what is under one name to the other, where that is free, or leave it all; whether there was something to move."""
        pairs = [(self.data(volume), self.data(target))]
        if not volume.snapshot:
            pairs.insert(0, (self.snapshots(volume), self.snapshots(target)))
        moved = []
        try:
            for source, destination in pairs:
                with suppress(FileNotFoundError):
                    rename_new(source, destination)
                    moved.append((source, destination))
            for _, destination in moved:
                flush_folder(destination.parent)
        except OSError:
            for source, destination in reversed(moved):
                with suppress(OSError):  # the note is there for the next audit
                    rename_new(destination, source)
            raise
        return bool(moved)

    def _notes(self) -> Iterator[tuple[Path, tuple[VolumeId, VolumeId]]]:
        for note in list(self._renames.iterdir()):
            if note.name.startswith("."):  # half-written
                note.unlink()
                continue
            old, new = json.loads(confined.read(self._renames, note.name))
            yield note, (_volume(old), _volume(new))

    def settle_renames(self, known: Collection[VolumeId]) -> list[str]:
        """Part of an audit: make the names on disk those of the database. One sentence for each repair."""
        repairs = []
        for note, (old, new) in self._notes():
            if new in known and old not in known and self._move(old, new):
                repairs.append(f"finished renaming {label(old)} to {label(new)}")
            if old in known and new not in known and self._move(new, old):
                repairs.append(f"undid renaming {label(old)} to {label(new)}")
            note.unlink()
        return repairs

    def clear_aside(self) -> list[str]:
        """Part of an audit: remove what a kill left half-made, half-deleted or mounted for a moment."""
        mounts = mount.unmount_below(self.aside)
        left = sorted(os.listdir(self.aside))
        for name in left:
            self.remove(self.aside / name)
        return [f"unmounted {path}" for path in mounts] + [f"removed the left-over {name}" for name in left]

    def scan(self) -> Iterator[VolumeId]:
        """All volumes and snapshots on disk."""
        for kind in VolumeKind:
            for key in _names(self.root / kind.folder):
                yield _from_key(kind, key)
            for key in _names(self.root / f"{kind.folder}-snapshots"):
                volume = _from_key(kind, key)
                for name in _names(self.snapshots(volume)):
                    yield volume.at(name)

    def compare(self, known: Collection[VolumeId]) -> list[str]:
        """Part of an audit: what is only on disk or only in the database. Nothing is changed, but for empty folders."""
        found = set(self.scan())
        for volume in {volume.parent for volume in known} | {volume.parent for volume in found}:
            remove_empty(self.snapshots(volume))
        unknown = [f"{label(volume)} is on disk but not in the database" for volume in sorted(found - set(known), key=label)]
        missing = [f"{label(volume)} is in the database but not on disk" for volume in sorted(set(known) - found, key=label)]
        return unknown + missing


def label(volume: VolumeId) -> str:
    """The volume in a message."""
    name = f"{volume.name}/{volume.snapshot}" if volume.snapshot else volume.name
    return f"{volume.kind.value} {name!r} of project {volume.project!r}"


def open_to_guest(data: Path, owner: int) -> None:
    """Let the guest's root, and nobody else, pass through the volume's folder to its `rootfs`."""
    os.chown(data, owner, 0)
    os.chmod(data, CLOSED)


def close_to_guest(data: Path) -> None:
    """The reverse; nothing wrong if the folder is gone."""
    try:
        os.chmod(data, CLOSED)
        os.chown(data, 0, 0)
    except FileNotFoundError:
        return


def copy_side_files(source: Path, target: Path, *, without: Collection[str], share: bool = False) -> None:
    """Copy what stands beside `rootfs` (metadata.yaml, templates/): regular files, two levels deep, links passed over.

    With `share` both names are of one file, for what is never written to again: from a snapshot to a snapshot.
    """
    put = _share_file if share else _copy_file
    for entry in os.scandir(source):
        if entry.name in without or entry.name == ROOTFS:
            continue
        if entry.is_file(follow_symlinks=False):
            put(source, target, entry.name)
        elif entry.is_dir(follow_symlinks=False):
            (target / entry.name).mkdir(mode=0o700)
            for below in os.scandir(entry.path):
                if below.is_file(follow_symlinks=False):
                    put(source, target, f"{entry.name}/{below.name}")


def _copy_file(source: Path, target: Path, name: str) -> None:
    shutil.copy2(source / name, target / name, follow_symlinks=False)


def _share_file(source: Path, target: Path, name: str) -> None:
    try:
        os.link(source / name, target / name, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EMLINK:
            raise
        _copy_file(source, target, name)


def rename_new(source: Path, target: Path) -> None:
    """Rename; FileExistsError if the target exists, even as an empty folder."""
    syscalls.renameat2(source, target, syscalls.RENAME_NOREPLACE)


def exchange(one: Path, other: Path) -> None:
    """Each gets the other's name, in one step."""
    syscalls.renameat2(one, other, syscalls.RENAME_EXCHANGE)


def flush_folder(path: Path) -> None:
    """Names in that folder are on disk for good."""
    with confined.directory(path) as descriptor:
        os.fsync(descriptor)


def remove_empty(path: Path) -> None:
    """Remove a folder if it is there and empty."""
    try:
        path.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
            raise


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:  # images have no snapshots
        return []


def _from_key(kind: VolumeKind, key: str) -> VolumeId:
    """The reverse of `VolumeId.key`; neither a project nor an instance has an underscore in its name."""
    if kind is VolumeKind.IMAGE or (kind is VolumeKind.INSTANCE and "_" not in key):
        return VolumeId(kind, "default", key)
    project, _, name = key.partition("_")
    return VolumeId(kind, project, name)


def _fields(volume: VolumeId) -> list[str]:
    return [volume.kind.value, volume.project, volume.name, volume.snapshot]


def _volume(fields: list[str]) -> VolumeId:
    kind, project, name, snapshot = fields
    return VolumeId(VolumeKind(kind), project, name, snapshot)
