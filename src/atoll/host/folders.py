"""The daemon's own folders: made with their modes, and those of each instance."""

from __future__ import annotations

from pathlib import Path

from atoll.domain.paths import FOLDERS, Paths
from atoll.host import confined, mount
from atoll.host.threads import in_thread


def make_state(paths: Paths) -> None:
    """All folders of a state directory, with the modes of the table (also when they were there with others).

    What is kept on a storage volume is a link, which may lead nowhere until its pool is open: it is passed over.
    """
    for name, mode in FOLDERS.items():
        folder = paths.root / name
        if folder.is_symlink() or folder.parent.is_symlink():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(mode)


def make_kept(paths: Paths) -> None:
    """What is to be in the folder of backups, wherever that is; passed over while that place is not there."""
    for name, mode in FOLDERS.items():
        folder = paths.root / name
        if folder.parent == paths.backups and paths.backups.is_dir():
            folder.mkdir(mode=mode, exist_ok=True)


async def make_instance_folders(paths: Paths, key: str, data: Path) -> None:
    """An instance's log and run folders, and the link to its volume; nothing wrong if they are there."""
    await in_thread(_make_instance, paths, key, data)


def _make_instance(paths: Paths, key: str, data: Path) -> None:
    for folder, mode in ((paths.logs(key), 0o700), (paths.run(key), 0o711), (paths.devices(key), 0o711)):
        folder.mkdir(mode=mode, exist_ok=True)
    link = paths.containers / key
    if not link.is_symlink():
        link.symlink_to(data)


async def link_snapshots(paths: Paths, key: str, data: Path) -> None:
    """The link to the folder of an instance's snapshots, as long as that is there."""
    await in_thread(_link_snapshots, paths, key, data)


def _link_snapshots(paths: Paths, key: str, data: Path) -> None:
    link = paths.snapshots(key)
    if link.is_symlink() and link.readlink() != data:  # it has moved to another pool
        link.unlink()
    if data.is_dir():
        if not link.is_symlink():
            link.symlink_to(data)
    else:
        link.unlink(missing_ok=True)


async def remove_instance_folders(paths: Paths, key: str) -> None:
    """The reverse; nothing wrong if they are gone."""
    await in_thread(_remove_instance, paths, key)


def _remove_instance(paths: Paths, key: str) -> None:
    (paths.containers / key).unlink(missing_ok=True)
    paths.snapshots(key).unlink(missing_ok=True)
    mount.unmount_below(paths.devices(key))  # sources of disks are pinned there: never to be removed with the folder
    for folder in (paths.logs(key), paths.run(key), paths.devices(key), paths.instance_backups(key)):
        confined.remove_tree(folder)


async def rename_instance_folders(paths: Paths, key: str, new: str, data: Path) -> None:
    """Under a new key, with the link to the renamed volume."""
    await in_thread(_rename_instance, paths, key, new, data)


def _rename_instance(paths: Paths, key: str, new: str, data: Path) -> None:
    (paths.containers / key).unlink(missing_ok=True)
    if key != new and (link := paths.snapshots(key)).is_symlink():
        _link_snapshots(paths, new, link.readlink().with_name(new))
        link.unlink()
    for old_folder, new_folder in (
        (paths.logs(key), paths.logs(new)),
        (paths.run(key), paths.run(new)),
        (paths.devices(key), paths.devices(new)),
        (paths.instance_backups(key), paths.instance_backups(new)),
    ):
        if old_folder.exists() and not new_folder.exists():
            old_folder.rename(new_folder)
    _make_instance(paths, new, data)
