"""Sizes of trees in a pool, by project quotas. All methods block and raise OSError.

A tree is a directory that a volume's owner writes to: the root of an instance, the data of a custom volume, the upper layer of an
overlay. Each gets a project of its own while it is empty, so that giving it a size later, also while it is in use, changes one
number. Snapshots and images have none: nobody writes to them. The project is kept by the tree itself and nowhere else.

Where the file system has no project quotas nothing is done, and `set_size` says why.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from atoll.domain.errors import Unsupported
from atoll.drivers.storage.folders import ROOTFS
from atoll.host import confined, project_quota

_UNFINISHED = "trusted.atoll.unfinished"
"""An attribute of a tree that was given a project while files were in it, until all of them have it."""


class Sizes:
    """The sizes of one pool, whose folder is `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._reason: str | None = "the pool is not open"

    @property
    def enforced(self) -> bool:
        """Whether the pool can limit anything. Does not block."""
        return self._reason is None

    def load(self) -> None:
        """Find out what the file system can, after the pool was opened."""
        self._reason = project_quota.reason_against(self._root)

    def begin(self, *trees: Path, size: int | None = None) -> None:
        """New, empty directories are going to be one tree, of that size."""
        if self.enforced:
            project = project_quota.unused(self._root)
            for tree in trees:
                project_quota.assign(tree, project)
            if size is not None:
                project_quota.limit(self._root, project, size)

    def join(self, tree: Path, *others: Path) -> bool:
        """New, empty directories are going to be of the same tree as `tree`; False if that is none."""
        project = project_quota.project_of(tree) if self.enforced else project_quota.NONE
        for other in others:
            if project:
                project_quota.assign(other, project)
        return bool(project)

    def inherit(self, old: Path, new: Path) -> None:
        """A tree that is going to be in the place of another gets its size."""
        if self.enforced and (size := self._size(old)) is not None:
            project_quota.limit(self._root, project_quota.project_of(new), size)

    def _size(self, tree: Path) -> int | None:
        project = project_quota.project_of(tree)
        return project_quota.limit_of(self._root, project) if project else None

    def set_size(self, trees: Sequence[Path], size: int | None) -> None:
        """Limit a tree that is in several directories, or no more. Unsupported, with the reason, where it cannot be limited."""
        if not self.enforced:
            if size is not None:
                raise Unsupported(f"The storage pool cannot limit the size of a volume: {self._reason}")
            return
        project = project_quota.project_of(trees[0])
        if size is not None and (not project or _UNFINISHED in os.listxattr(trees[0])):
            project = project or project_quota.unused(self._root)
            self._adopt(trees, project)
        if project:
            project_quota.limit(self._root, project, size)

    @staticmethod
    def _adopt(trees: Sequence[Path], project: int) -> None:
        """Make directories with files, from before the file system had quotas, a tree; done again after a kill."""
        os.setxattr(trees[0], _UNFINISHED, b"")
        for tree in trees:
            project_quota.assign_all(tree, project)
        with suppress(FileNotFoundError):
            os.removexattr(trees[0], _UNFINISHED)

    def project(self, tree: Path) -> int:
        """What tells a tree from others; 0 for what is none."""
        return project_quota.project_of(tree)

    def usage(self, tree: Path) -> int | None:
        """Bytes in the tree; None if nobody counts them."""
        project = project_quota.project_of(tree) if self.enforced else project_quota.NONE
        return project_quota.usage(self._root, project) if project else None

    def forget(self, tree: Path) -> None:
        """The tree is about to be removed: its project gets free for others."""
        if self.enforced and (project := project_quota.project_of(tree)):
            project_quota.limit(self._root, project, None)

    def remove(self, path: Path) -> None:
        """Remove a volume that was taken out of sight, or a half-made one, with its size."""
        for tree in (path, path / ROOTFS):
            self.forget(tree)
        confined.remove_tree(path)
