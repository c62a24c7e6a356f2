"""The few small files that stand beside a root file system: metadata, templates. A guest has no way to them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from atoll.host import confined
from atoll.host.threads import in_thread


async def copy(source: Path, target: Path, names: Sequence[str]) -> None:
    """Make these files, and the regular files in these folders, in `target` what they are in `source`, present or not."""
    await in_thread(_copy, source, target, names)


def _copy(source: Path, target: Path, names: Sequence[str]) -> None:
    for name in names:
        confined.remove_tree(target / name)
        found = source / name
        if found.is_symlink():
            continue
        if found.is_dir():
            (target / name).mkdir(mode=0o700)
            for entry in sorted(found.iterdir()):
                if entry.is_file() and not entry.is_symlink():
                    shutil.copy2(entry, target / name / entry.name)
        elif found.is_file():
            shutil.copy2(found, target / name)
