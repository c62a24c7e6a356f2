"""`file pull`: files of instances into local ones.

What an instance says of its files is not trusted: names are single ones, and below the target that the user gave nothing is
written through a link, which an earlier pull may have brought.
"""

from __future__ import annotations

import os
import stat
import sys

from atoll.cli import times
from atoll.cli.commands import files
from atoll.cli.errors import CommandError
from atoll.client.server import decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import BinaryIO

    from atoll.cli.commands.files import Place
    from atoll.cli.session import Call
    from atoll.client.http1 import Response

DEEPEST = 256


def pull(call: Call) -> None:
    """Pull files, and with --recursive directories."""
    *words, target = call.arguments
    sources = [files.place(call, word, "source") for word in words]
    if target == "-":
        for source in sources:
            files.followed(source, sys.stdout.buffer.write)
        return
    into_folder = _prepare(call, target, len(sources))
    for source in sources:
        _Pull(call).take(source, f"{target.rstrip('/') or '/'}/{source.name}" if into_folder else target)


def _prepare(call: Call, target: str, count: int) -> bool:
    """Whether the target is a directory to pull into; made, with those above it, where that is wanted."""
    if os.path.exists(target):
        if not os.path.isdir(target) and count > 1:
            raise CommandError("More than one file to download, but target is not a directory")
        return os.path.isdir(target)
    if target.endswith("/") or count > 1 or call.flags.on("recursive"):
        os.makedirs(target, 0o755)
        return True
    if call.flags.on("create-dirs"):
        os.makedirs(os.path.dirname(target) or ".", 0o755, exist_ok=True)
    return False


class _Pull:
    """One source of a call."""

    def __init__(self, call: Call) -> None:
        self._recursive = call.flags.on("recursive")
        self._call = call

    def take(self, source: Place, target: str) -> None:
        """A file, link or directory to exactly that local path."""
        self._take(source, target, depth=0)

    def _take(self, source: Place, target: str, *, depth: int) -> None:
        file: BinaryIO | None = None
        progress = self._call.progress(f"Pulling {source.path} from {source.instance}")
        received = 0

        def choose(headers: Mapping[str, str]) -> Callable[[bytes], object] | None:
            nonlocal file
            if files.kind(headers) != "file":
                return None
            file = _open(target, _mode(headers), follow=depth == 0)
            return take

        def take(piece: bytes) -> None:
            nonlocal received
            assert file is not None
            file.write(piece)
            received += len(piece)
            if progress is not None:
                progress.show(f"Pulling {source.path} from {source.instance}: {times.decimal_size(received)}")

        try:
            answer = source.get(choose)
        finally:
            if progress is not None:
                progress.clear()
            if file is not None:
                file.close()
        if files.kind(answer.headers) == "directory":
            self._take_directory(source, target, answer, depth=depth)
        elif files.kind(answer.headers) == "symlink":
            self._take_link(source, target, answer, depth=depth)

    def _take_link(self, source: Place, target: str, answer: Response, *, depth: int) -> None:
        """A link as a link; one that a recursive pull was told to begin with, as what it leads to."""
        if depth == 0 and self._recursive:
            followed = source.at(files.text_of(answer))
            for _ in range(files.MOST_LINKS):
                answer = followed.get()
                if files.kind(answer.headers) != "symlink":
                    self._take(followed, target, depth=0)
                    return
                followed = source.at(files.text_of(answer))
            raise CommandError(f"Too many levels of symbolic links: {source.path}")
        if os.path.islink(target):
            os.unlink(target)
        os.symlink(answer.body, os.fsencode(target))

    def _take_directory(self, source: Place, target: str, answer: Response, *, depth: int) -> None:
        if not self._recursive:
            raise CommandError("Can't pull a directory without --recursive")
        if depth > DEEPEST:
            raise CommandError(f"Directories are nested too deeply: {source.path}")
        _make_directory(target, _mode(answer.headers), follow=depth == 0)
        for name in decode(answer).metadata or ():
            if name in ("", ".", "..") or "/" in name or "\0" in name:
                raise CommandError(f"The server told of a file with an impossible name: {name!r}")
            self._take(source.below(name), f"{target}/{name}", depth=depth + 1)


def _mode(headers: Mapping[str, str]) -> int:
    return int(headers.get("x-lxd-mode") or "0644", 8) & 0o777


def _open(path: str, mode: int, *, follow: bool) -> BinaryIO:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    fd = os.open(path, flags, mode)
    os.fchmod(fd, mode)
    return open(fd, "wb", buffering=0)


def _make_directory(path: str, mode: int, *, follow: bool) -> None:
    """A directory to pull into; the user can always write in it."""
    try:
        os.mkdir(path, mode | stat.S_IRWXU)
    except FileExistsError:
        found = os.stat(path, follow_symlinks=follow)
        if not stat.S_ISDIR(found.st_mode):
            raise
