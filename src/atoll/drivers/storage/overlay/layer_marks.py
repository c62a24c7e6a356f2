"""The marks that an overlay keeps in a layer's directories. Functions block."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from atoll.domain.errors import BadRequest, NotFound, Unsupported
from atoll.host import confined

_PREFIX = "trusted.overlay."
_OPAQUE = f"{_PREFIX}opaque"
_OF_NO_USE = {f"{_PREFIX}{name}" for name in ("origin", "impure", "nlink", "uuid")}
"""They tell inodes of below, for which the kernel finds others, or none, elsewhere."""


def opaque(tree: Path) -> list[bytes]:
    """The directories that hide what is below them. Unsupported if others have been renamed, or for marks that are not known."""
    return [os.fsencode(os.path.relpath(path, tree)) for path in _directories(os.fsencode(tree)) if _is_opaque(path)]


def _directories(tree: bytes) -> Iterator[str]:
    pending = [tree]
    while pending:
        with os.scandir(pending.pop()) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    yield os.fsdecode(entry.path)
                    pending.append(entry.path)


def _is_opaque(path: str) -> bool:
    marks = {name for name in os.listxattr(path, follow_symlinks=False) if name.startswith(_PREFIX)} - _OF_NO_USE
    if not marks:
        return False
    if marks != {_OPAQUE} or os.getxattr(path, _OPAQUE, follow_symlinks=False) != b"y":
        raise Unsupported("The instance has directories of its image that were renamed")
    return True


def set_opaque(tree: Path, paths: Sequence[bytes]) -> None:
    """Set that mark. A stranger chose the paths and the tree: no link is followed."""
    for path in paths:
        name = os.fsdecode(path)
        if name in ("", ".") or "\0" in name:
            raise BadRequest("A layer's list of directories is malformed")
        try:
            with confined.directory(tree, name) as found:
                os.setxattr(found, _OPAQUE, b"y")
        except (NotFound, OSError) as error:
            raise BadRequest(f"A layer has no directory {name[:80]!r}") from error
