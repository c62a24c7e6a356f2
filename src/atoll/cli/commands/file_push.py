"""`file push`: local files into instances."""

from __future__ import annotations

import os
import stat

from atoll.cli.commands import files, transfer
from atoll.cli.errors import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from atoll.cli.commands.files import Place
    from atoll.cli.session import Call

_STDIN_MODE = 0o644


def push(call: Call) -> None:
    """Push files, and with --recursive directories."""
    *sources, word = call.arguments
    target = files.place(call, word, "target")
    into_folder = word.endswith("/")
    if call.flags.on("recursive"):
        _push_trees(call, sources, target)
        return
    if len(sources) > 1 and not into_folder:
        raise CommandError("Missing target directory")
    for source in sources:
        path = "/dev/stdin" if source == "-" else source
        to = target.below(os.path.basename(path)) if into_folder else target
        with open(path, "rb", buffering=0) as file:  # what cannot be read is told before anything is made
            found = os.fstat(file.fileno())
        if stat.S_ISDIR(found.st_mode):
            raise CommandError(f"read {source}: is a directory")
        attributes = _attributes(call, found, is_stdin=source == "-")
        if call.flags.on("create-dirs"):
            _make_directories(to.at(os.path.dirname(to.path)), attributes)
        _push_file(call, path, to, attributes, found)


def _attributes(call: Call, found: os.stat_result, *, is_stdin: bool) -> dict[str, str]:
    """Headers of a new file: as the flags say, else as the local file is."""
    uid, gid, mode = call.flags.number("uid"), call.flags.number("gid"), call.flags.text("mode")
    try:
        bits = int(mode, 8) if mode else _STDIN_MODE if is_stdin else stat.S_IMODE(found.st_mode)
    except ValueError as error:
        raise CommandError(f"Invalid mode: {mode}") from error
    return {
        "X-LXD-uid": str(found.st_uid if uid < 0 else uid),
        "X-LXD-gid": str(found.st_gid if gid < 0 else gid),
        "X-LXD-mode": f"{bits & 0o777:04o}",
    }


def _push_file(call: Call, path: str, target: Place, attributes: dict[str, str], found: os.stat_result) -> None:
    headers = {**attributes, "X-LXD-type": "file", "X-LXD-write": "overwrite"}
    label = f"Pushing {path} to {target.path}"
    size = found.st_size if stat.S_ISREG(found.st_mode) and path != "/dev/stdin" else None
    progress = call.progress(label)
    try:
        target.post(headers, transfer.counted(transfer.contents(path), size, label, progress))
    finally:
        if progress is not None:
            progress.clear()


def _make_directories(target: Place, attributes: dict[str, str]) -> None:
    """The directory and those above it; new ones get the file's owner, not its mode."""
    headers = {name: value for name, value in attributes.items() if name != "X-LXD-mode"} | {"X-LXD-type": "directory"}
    path = ""
    for name in target.path.split("/"):
        if name not in ("", "."):
            path = f"{path}/{name}"
            target.at(path).post(headers)


# --- trees -----------------------------------------------------------------------------------------------------------------


def _push_trees(call: Call, sources: list[str], target: Place) -> None:
    flags = call.flags
    if flags.number("uid") >= 0 or flags.number("gid") >= 0 or flags.text("mode"):
        raise CommandError("Can't supply uid/gid/mode in recursive mode")
    if flags.on("create-dirs"):
        _make_directories(target, _attributes(call, os.stat(sources[0]), is_stdin=False))
    for source in sources:
        top = os.path.normpath(source)
        cut = len(top) - len(os.path.basename(top))
        for path, found in _walk(top):
            _push_entry(call, path, target.at(os.path.normpath(f"{target.path}/{path[cut:]}")), found)


def _walk(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """A file or directory and all below it, a directory before its content, in order of names."""
    found = os.lstat(path)
    yield path, found
    if stat.S_ISDIR(found.st_mode):
        for name in sorted(os.listdir(path)):
            yield from _walk(name if path == "." else f"{path}/{name}")


def _push_entry(call: Call, path: str, target: Place, found: os.stat_result) -> None:
    attributes = _attributes(call, found, is_stdin=False)
    if stat.S_ISDIR(found.st_mode):
        target.post(attributes | {"X-LXD-type": "directory"})
    elif stat.S_ISLNK(found.st_mode):
        target.post(attributes | {"X-LXD-type": "symlink"}, os.fsencode(os.readlink(path)))
    elif stat.S_ISREG(found.st_mode):
        _push_file(call, path, target, attributes, found)
    else:
        raise CommandError(f"'{path}' isn't a supported file type")
