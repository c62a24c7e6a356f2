"""Archives of backups: what they say of themselves, and their volumes unpacked. Written by LXD, by us, or by a stranger.

    backup/index.yaml               see `domain.backup_metadata`
    backup/container/               a volume: rootfs/, and perhaps metadata.yaml, templates/, backup.yaml
    backup/snapshots/NAME/          likewise, for each snapshot
    backup/volume/                  a custom volume: whatever it holds
    backup/volume-snapshots/NAME/   likewise, for each snapshot
    backup/volume.img, backup/volume-snapshots/NAME.img
                                    the same of a volume that is a disk, see `archive_image`
    backup/optimized_header.yaml, backup/container.bin, backup/snapshots/NAME.bin
                                    the same, in the form of the pool's driver; of a custom volume likewise

A volume is unpacked within the walls of `archive_unpack`, and with the same care for what is left of it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from atoll.domain import backup_metadata, volume_backup_metadata
from atoll.domain.backup_metadata import BackupIndex, InstanceBackup, OptimizedHeader
from atoll.domain.compression import NONE
from atoll.domain.errors import BadRequest, HostError, NotFound, Unsupported
from atoll.domain.idmap import IdMap
from atoll.domain.undo import Reverter
from atoll.domain.volume_backup_metadata import VolumeIndex
from atoll.host import (
    archive,
    archive_check,
    archive_kind,
    archive_pack,
    archive_squashfs,
    archive_stream,
    archive_tar,
    archive_unpack,
)
from atoll.host.archive_kind import Kind
from atoll.host.archive_sandbox import Bind
from atoll.host.archive_shift import Unshift
from atoll.host.archive_stream import Progress
from atoll.host.archive_tar import Budget, Layout, Member, Rules, clean_name
from atoll.host.threads import in_thread

TOP = "backup"
VOLUME = f"{TOP}/container"
SNAPSHOTS = f"{TOP}/snapshots"


@dataclass(frozen=True, slots=True)
class Shape:
    """Where in an archive the volume is, and its snapshots by their names."""

    volume: str
    snapshots: str

    def place(self, snapshot: str) -> str:
        """Of a snapshot, or for "" of the volume."""
        return f"{self.snapshots}/{snapshot}" if snapshot else self.volume


INSTANCE = Shape(VOLUME, SNAPSHOTS)
CUSTOM = Shape(f"{TOP}/volume", f"{TOP}/volume-snapshots")
DISK_SUFFIX = ".img"

_PARTS = (b"metadata.yaml", b"rootfs", b"templates")
_EMPTY_SECONDS = 600.0
_LAST_ID = (1 << 32) - 2


async def read_index(path: Path, budget: Budget) -> BackupIndex:
    """What an archive holds. BadRequest if it is no backup of an instance."""
    return await in_thread(backup_metadata.parse_index, await _index(path, budget))


async def read_volume_index(path: Path, budget: Budget) -> VolumeIndex:
    """As `read_index`, of a custom volume's backup."""
    return await in_thread(volume_backup_metadata.parse_index, await _index(path, budget))


async def _index(path: Path, budget: Budget) -> bytes:
    text = await archive.read_member(path, f"{TOP}/{backup_metadata.INDEX}", budget=budget)
    if text is None:
        raise BadRequest("The archive is no backup: it has no backup/index.yaml")
    return text


async def read_backup(path: Path, budget: Budget) -> InstanceBackup:
    """The instance's own description, which an old archive has nowhere else."""
    text = await archive.read_member(path, f"{VOLUME}/{backup_metadata.BACKUP}", budget=budget)
    if text is None:
        raise BadRequest("The archive does not describe its instance: it has no backup.yaml")
    return await in_thread(backup_metadata.parse_backup, text)


async def read_header(path: Path, budget: Budget) -> OptimizedHeader:
    """The streams of an optimized archive that says it lists them."""
    text = await archive.read_member(path, f"{TOP}/{backup_metadata.HEADER}", budget=budget)
    if text is None:
        raise BadRequest("The archive has no optimized_header.yaml, which its index speaks of")
    return await in_thread(backup_metadata.parse_header, text)


async def as_tar(path: Path, folder: Path, budget: Budget) -> Path:
    """The archive itself, or a new tar file in `folder` (which nobody else sees) if it is a squashfs."""
    if await in_thread(archive_kind.identify, path) is not Kind.SQUASHFS:
        return path
    tree, made = folder / "tree", folder / "unpacked.tar"
    await in_thread(tree.mkdir, 0o700)
    try:
        await archive_squashfs.unpack(path, Layout.ROOTFS, tree, budget)
        await in_thread(_require_folder, tree / TOP)
        await archive_pack.pack_tar([Bind(tree / TOP, TOP)], [TOP], made, compression=NONE, seconds=budget.seconds)
    finally:
        await archive_unpack.empty(tree)
    return made


def _require_folder(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        raise BadRequest("The archive is no backup")


async def unpack_volume(
    path: Path, folder: str, target: Path, *, shifted: IdMap | None, budget: Budget, progress: Progress | None = None
) -> None:
    """One volume of an archive (`folder` is VOLUME, or a name in SNAPSHOTS) into `target`, which is empty or holds an empty
    `rootfs/`. `shifted`: the map that its files' ids were shifted by.

    Errors as those of `archive_unpack.unpack_image`; the target is then as empty as before.
    """
    kind = await in_thread(archive_kind.identify, path)
    if kind in (Kind.SQUASHFS, Kind.QCOW2):
        raise Unsupported("This kind of archive cannot be unpacked by parts")
    async with Reverter("unpack a backup", step_seconds=_EMPTY_SECONDS) as undo:
        undo.add(archive_unpack.empty, target)
        async with archive_stream.time_limit(budget.seconds, "Unpacking the backup"):
            rules = VolumeRules(folder)
            strip = folder.count("/") + 1
            await archive_unpack.unpack_tar(
                path, kind, rules, target, budget, progress, strip=strip, rewrite=Unshift(shifted).rewrite
            )
            await in_thread(archive_check.settle_volume, target)
        undo.success()


async def unpack_custom(
    path: Path, folder: str, target: Path, *, shifted: IdMap | None, budget: Budget, progress: Progress | None = None
) -> None:
    """As `unpack_volume`, for a custom volume (`folder` is in the shape CUSTOM), which gets the owner and mode of that folder.
    What a failure leaves in `target` is the caller's to remove."""
    kind = await in_thread(archive_kind.identify, path)
    if kind in (Kind.SQUASHFS, Kind.QCOW2):
        raise Unsupported("This kind of archive cannot be unpacked by parts")
    rules = CustomRules(folder)
    unshift = Unshift(shifted)
    async with archive_stream.time_limit(budget.seconds, "Unpacking the backup"):
        strip = folder.count("/") + 1
        await archive_unpack.unpack_tar(path, kind, rules, target, budget, progress, strip=strip, rewrite=unshift.rewrite)
        await in_thread(_settle_top, target, unshift.rewrite(rules.top))


async def unpack_tree(path: Path, target: Path, *, budget: Budget) -> None:
    """A tar archive of any files into `target`, which gets the owner and mode of the archive's own top if it has one. Errors as
    those of `unpack_custom`."""
    kind = await in_thread(archive_kind.identify, path)
    if kind in (Kind.SQUASHFS, Kind.QCOW2):
        raise BadRequest("The file is no tar archive")
    rules = TreeRules()
    async with archive_stream.time_limit(budget.seconds, "Unpacking the archive"):
        await archive_unpack.unpack_tar(path, kind, rules, target, budget)
        await in_thread(_settle_top, target, rules.top)


def _settle_top(target: Path, head: Sequence[bytes]) -> None:
    """Give the folder the owner and mode of a head. Set-id bits of the top folder are not taken over."""
    if head:
        mode, uid, gid = (archive_tar.number(head[-1][field]) for field in (slice(100, 108), slice(108, 116), slice(116, 124)))
        if max(uid, gid) > _LAST_ID:
            raise BadRequest("The archive has an owner that cannot be")
        os.chown(target, uid, gid)
        os.chmod(target, mode & 0o1777)


class CustomRules:
    """Keeps what belongs to one custom volume of a backup, but no device nodes. `top` is the head of its own folder, if it has
    one."""

    def __init__(self, folder: str) -> None:
        self._name = folder.encode()
        self._found = False
        self.top: Sequence[bytes] = ()

    def keeps(self, member: Member) -> bool:
        """See `archive_tar.Filter`."""
        if member.name == self._name:
            if member.kind != archive_tar.DIRECTORY:
                raise BadRequest(f"The archive's {self._name.decode(errors='replace')} is not a directory")
            self._found, self.top = True, member.head
            return False
        prefix = self._name + b"/"
        if not member.name.startswith(prefix):
            return False
        if not member.spelled.startswith(prefix):
            raise BadRequest(f"The archive has a name that is spelled strangely: {archive_tar.shown(member.spelled)}")
        if member.kind in (archive_tar.CHARACTER, archive_tar.BLOCK_DEVICE):
            return False
        if member.kind == archive_tar.LINK and not (
            clean_name(member.link).startswith(prefix) and member.link.startswith(prefix)
        ):
            raise BadRequest(f"The archive has a hard link that leads out of its volume: {archive_tar.shown(member.name)}")
        self._found = True
        return True

    def check_complete(self) -> None:
        """See `archive_tar.Filter`."""
        if not self._found:
            raise BadRequest(f"The archive has no {self._name.decode(errors='replace')}")


class TreeRules:
    """Keeps all that an archive has but device nodes. `top` is the head of its top folder, if it has one."""

    def __init__(self) -> None:
        self.top: Sequence[bytes] = ()

    def keeps(self, member: Member) -> bool:
        """See `archive_tar.Filter`."""
        if not member.name:
            if member.kind != archive_tar.DIRECTORY:
                raise BadRequest("The archive's top is not a directory")
            self.top = member.head
            return False
        if member.kind == archive_tar.LINK and not clean_name(member.link):
            raise BadRequest(f"The archive has a hard link to nothing: {archive_tar.shown(member.name)}")
        return member.kind not in (archive_tar.CHARACTER, archive_tar.BLOCK_DEVICE)

    def check_complete(self) -> None:
        """See `archive_tar.Filter`: an archive may be empty."""


class VolumeRules:
    """Keeps what belongs to one volume of a backup."""

    def __init__(self, folder: str) -> None:
        self._prefix = f"{folder}/".encode()
        self._rules = Rules(Layout.UNIFIED)
        self._has_rootfs = False

    def keeps(self, member: Member) -> bool:
        """See `archive_tar.Filter`."""
        if not member.name.startswith(self._prefix):
            return False
        if not member.spelled.startswith(self._prefix):
            raise BadRequest(f"The archive has a name that is spelled strangely: {archive_tar.shown(member.spelled)}")
        name = member.name.removeprefix(self._prefix)
        if name.partition(b"/")[0] not in _PARTS:
            return False
        if member.kind == archive_tar.LINK:
            link = clean_name(member.link)
            if not (link.startswith(self._prefix) and member.link.startswith(self._prefix)):
                raise BadRequest(f"The archive has a hard link that leads out of its volume: {archive_tar.shown(member.name)}")
            member = dataclasses.replace(member, link=link.removeprefix(self._prefix))
        self._has_rootfs = self._has_rootfs or name == b"rootfs" or name.startswith(b"rootfs/")
        return self._rules.keeps(dataclasses.replace(member, name=name))

    def check_complete(self) -> None:
        """See `archive_tar.Filter`."""
        if not self._has_rootfs:
            raise BadRequest(f"The archive has no {self._prefix.decode(errors='replace')}rootfs")


async def extract_file(path: Path, name: str, target: Path, budget: Budget) -> None:
    """A member of an archive as the new file `target`: an optimized archive's stream. NotFound if there is none."""
    kind = await in_thread(archive_kind.identify, path)
    if kind in (Kind.SQUASHFS, Kind.QCOW2):
        raise Unsupported("An optimized backup must be a tar archive")
    async with archive_stream.time_limit(budget.seconds, "Unpacking the backup"):
        async with archive_stream.open_tar(path, kind, budget) as opened:
            found = await opened.worker.run(lambda: _extract(opened.source, name.encode(), target, budget))
    if not found:
        raise NotFound(f"The archive has no {name}")


def _extract(source: archive_tar.Source, name: bytes, target: Path, budget: Budget) -> bool:
    for member in archive_tar.members(source, budget):
        if member.name != name:
            for _ in source.pieces(member.padded):
                pass
            continue
        if member.kind not in (b"0", b"\0"):
            raise BadRequest(f"The archive's {archive_tar.shown(name)} is not a plain file")
        try:
            with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                for piece in source.pieces(member.stored):
                    file.write(piece)
        except OSError as error:
            raise HostError(f"Cannot unpack the backup: {error.strerror or error}") from error
        return True
    return False
