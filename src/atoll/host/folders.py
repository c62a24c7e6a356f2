"""The daemon's own folders: made with their modes, and those of each instance."""

from __future__ import annotations

import shutil
from pathlib import Path

from atoll.domain.paths import FOLDERS, Paths
from atoll.host.threads import in_thread


def make_state(paths: Paths) -> None:
    """All folders of a state directory, with the modes of the table (also when they were there with others)."""
    for name, mode in FOLDERS.items():
        folder = paths.root / name
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(mode)


async def make_instance_folders(paths: Paths, key: str, data: Path) -> None:
    """An instance's log and run folders, and the link to its volume; nothing wrong if they are there."""
    await in_thread(_make_instance, paths, key, data)


def _make_instance(paths: Paths, key: str, data: Path) -> None:
    for folder, mode in ((paths.logs(key), 0o700), (paths.run(key), 0o711), (paths.devices(key), 0o711)):
        folder.mkdir(mode=mode, exist_ok=True)
    link = paths.containers / key
    if not link.is_symlink():
        link.symlink_to(data)


async def remove_instance_folders(paths: Paths, key: str) -> None:
    """The reverse; nothing wrong if they are gone."""
    await in_thread(_remove_instance, paths, key)


def _remove_instance(paths: Paths, key: str) -> None:
    (paths.containers / key).unlink(missing_ok=True)
    for folder in (paths.logs(key), paths.run(key), paths.devices(key)):
        # These are the daemon's own, guests have no way in; rmtree is safe against links that appear meanwhile.
        shutil.rmtree(folder, ignore_errors=True)


async def rename_instance_folders(paths: Paths, key: str, new: str, data: Path) -> None:
    """Under a new key, with the link to the renamed volume."""
    await in_thread(_rename_instance, paths, key, new, data)


def _rename_instance(paths: Paths, key: str, new: str, data: Path) -> None:
    (paths.containers / key).unlink(missing_ok=True)
    for old_folder, new_folder in (
        (paths.logs(key), paths.logs(new)),
        (paths.run(key), paths.run(new)),
        (paths.devices(key), paths.devices(new)),
    ):
        if old_folder.exists() and not new_folder.exists():
            old_folder.rename(new_folder)
    _make_instance(paths, new, data)
