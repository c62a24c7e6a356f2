"""The layers of a pool: made, counted, found unused.

What counts is on disk, in the volumes' stack files; the counts here are derived from them when the pool is opened and kept in
step by `hold` and `release`. Methods block and may be called from several threads.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from atoll.domain.errors import HostError, Unsupported
from atoll.drivers.storage import folders
from atoll.drivers.storage.sizes import Sizes
from atoll.host import confined

Stack = tuple[str, ...]
"""Ids of layers, topmost first; never empty."""

STACK_FILE = "layers"
TREE, WORK = "fs", "work"
DEEPEST = 64
"""A stack this high is flattened before it grows: each look-up of a missing name asks every layer, and the kernel takes a
page of mount options."""

_ID = re.compile(r"[0-9a-f]{12}")


def read_stack(data: Path) -> Stack:
    """The stack of the volume in that folder. HostError if its file is damaged, NotFound if there is none."""
    stack = tuple(confined.read(data, STACK_FILE).decode(errors="replace").split())
    if not stack or not all(_ID.fullmatch(layer) for layer in stack):
        raise HostError(f"The list of layers in {data} is damaged")
    return stack


def write_stack(data: Path, stack: Stack) -> None:
    """Replace the stack of the volume in that folder, atomically and for good."""
    confined.write(data, STACK_FILE, _text(stack))


def write_first_stack(made: Path, stack: Stack) -> None:
    """Write the stack of a volume that is not in place yet. Its name is on the disk when that of the volume is."""
    descriptor = os.open(made / STACK_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, _text(stack))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def share_first_stack(made: Path, source: Path, stack: Stack) -> None:
    """As `write_first_stack`, for the stack that a volume in folder `source` has: both names are of one file, which is on the
    disk already and never written to (`write_stack` makes a new one)."""
    try:
        os.link(source / STACK_FILE, made / STACK_FILE, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EMLINK:
            raise
        write_first_stack(made, stack)


def _text(stack: Stack) -> bytes:
    return "".join(f"{layer}\n" for layer in stack).encode()


def require_no_whiteouts(tree: Path) -> None:
    """Unsupported if there are marks of an overlay in a tree that is to be a layer, as container engines leave them that ran on
    another file system: they would be taken for ours, and what they hide is a guest's own affair."""
    pending = [os.fspath(tree)]
    while pending:
        with os.scandir(pending.pop()) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif not entry.is_file(follow_symlinks=False) and not entry.is_symlink():
                    facts = entry.stat(follow_symlinks=False)
                    if stat.S_ISCHR(facts.st_mode) and facts.st_rdev == 0:
                        name = os.path.relpath(entry.path, tree)
                        raise Unsupported(
                            f"The root file system has marks of an overlay, which pools of this driver cannot keep: {name}"
                        )


class LayerStore:
    """The folder `layers/` of a pool, 0700: `ID/fs` is the tree, `ID/work` what an overlay needs beside an upper.

    To the pool's `sizes` an instance is one tree, with all the uppers that it had one after the other: a size limits what it has
    written since it was made, as long as it or a snapshot keeps that."""

    def __init__(self, root: Path, sizes: Sizes) -> None:
        self.root = root
        self.sizes = sizes
        self.lock = threading.RLock()
        """Held while a stack file is read and its layers held, so that no layer goes in between."""
        self._counts: Counter[str] = Counter()

    def load(self, stacks: Iterable[Stack]) -> None:
        """Count anew, from all stack files of the pool."""
        with self.lock:
            self._counts = Counter(layer for stack in stacks for layer in stack)

    def tree(self, layer: str) -> Path:
        """Where the layer's files are."""
        return self.root / layer / TREE

    def parts(self, layer: str) -> tuple[Path, Path]:
        """The directories of a layer that an overlay writes to."""
        return self.tree(layer), self.root / layer / WORK

    def hold(self, stack: Stack) -> None:
        """One more volume has this stack. Before its stack file is visible."""
        with self.lock:
            self._counts.update(stack)

    def release(self, stack: Stack) -> list[str]:
        """One volume less has this stack, its file is gone. Returns the layers that no volume has any more."""
        with self.lock:
            self._counts.subtract(stack)
            unused = [layer for layer in stack if self._counts[layer] <= 0]
            for layer in unused:
                del self._counts[layer]
            return unused

    def unused(self) -> list[str]:
        """Layers on disk that no stack names."""
        with self.lock:
            return [name for name in sorted(os.listdir(self.root)) if name not in self._counts]

    def missing(self, stack: Stack) -> list[str]:
        """Layers of the stack that are not on disk."""
        return [layer for layer in stack if not self.tree(layer).is_dir()]

    def make(self, below: Stack = (), *, after: str = "") -> str:
        """A new empty layer, whose root directory looks like the topmost one's below: it is what a guest sees as `/`. It is to be
        an upper of the instance whose upper `after` was; else of a new one."""
        with self._new() as layer:
            parts = self.parts(layer)
            parts[0].mkdir(mode=0o755)
            if not (after and self.sizes.join(self.tree(after), *parts)):
                self.sizes.begin(*parts)
            if below:
                _copy_attributes(self.tree(below[0]), parts[0])
            return layer

    def adopt(self, tree: Path) -> str:
        """Make a finished directory on the pool's file system a layer, by renaming it."""
        with self._new() as layer:
            folders.rename_new(tree, self.tree(layer))
            self.sizes.join(*self.parts(layer))
            return layer

    @contextmanager
    def _new(self) -> Iterator[str]:
        """A new layer without a tree, removed again if the block fails."""
        layer = secrets.token_hex(6)
        path = self.root / layer
        path.mkdir(mode=0o700)
        try:
            (path / WORK).mkdir(mode=0o700)
            yield layer
        except BaseException:
            confined.remove_tree(path)
            raise


def _copy_attributes(source: Path, target: Path) -> None:
    """Owner, mode and extended attributes of a directory, without the marks that an overlay keeps on its layers' roots."""
    found = source.stat()
    os.chown(target, found.st_uid, found.st_gid)
    os.chmod(target, found.st_mode & 0o7777)
    for name in os.listxattr(source):
        if not name.startswith("trusted.overlay."):
            os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
