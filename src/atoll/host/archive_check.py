"""Looks at an unpacked image before anything uses it: what must be plain files and folders is, and belongs to root.

Everything is reached from one directory descriptor without following links, because the tree is a stranger's.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from atoll.domain import image_metadata
from atoll.domain.errors import BadRequest
from atoll.domain.image_metadata import ImageMetadata
from atoll.host.archive_tar import MAX_TEMPLATES

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_EXPECTED = {"metadata.yaml", "rootfs", "templates"}


def settle(target: Path) -> ImageMetadata:
    """Check an unpacked image, make its metadata root's, and return what it says. BadRequest for what is not as it must be."""
    top = os.open(target, _FOLDER)
    try:
        surplus = set(os.listdir(top)) - _EXPECTED
        if surplus:
            raise BadRequest(f"The image has unexpected files: {', '.join(sorted(surplus)[:5])!r}")
        os.close(_open(top, "rootfs", _FOLDER, "rootfs"))
        metadata = image_metadata.parse(_take_file(top, "metadata.yaml", "metadata.yaml"))
        _settle_templates(top)
        return metadata
    finally:
        os.close(top)


def settle_volume(target: Path) -> None:
    """As `settle`, for a volume out of a backup, whose metadata is optional and not looked into: whoever uses it does."""
    top = os.open(target, _FOLDER)
    try:
        found = set(os.listdir(top))
        if surplus := found - _EXPECTED:
            raise BadRequest(f"The volume has unexpected files: {', '.join(sorted(surplus)[:5])!r}")
        os.close(_open(top, "rootfs", _FOLDER, "rootfs"))
        if "metadata.yaml" in found:
            _take_file(top, "metadata.yaml", "metadata.yaml")
        _settle_templates(top)
    finally:
        os.close(top)


def read_file(folder: Path, name: str, *, limit: int = image_metadata.MAX_BYTES) -> bytes:
    """A regular file of a folder that strangers may have filled. BadRequest if it is missing, a link, or beyond `limit`."""
    top = os.open(folder, _FOLDER)
    try:
        file = _open_plain(top, name, name)
        with os.fdopen(file, "rb") as stream:
            data = stream.read(limit + 1)
    finally:
        os.close(top)
    if len(data) > limit:
        raise BadRequest(f"The image's {name} is larger than {limit} bytes")
    return data


def _settle_templates(top: int) -> None:
    try:
        os.lstat("templates", dir_fd=top)
    except FileNotFoundError:
        return
    folder = _open(top, "templates", _FOLDER, "templates")
    try:
        os.fchown(folder, 0, 0)
        os.fchmod(folder, 0o755)
        names = os.listdir(folder)
        if len(names) > MAX_TEMPLATES:
            raise BadRequest(f"The image has more than {MAX_TEMPLATES} templates")
        for name in names:
            _take_file(folder, name, f"templates/{name[:80]}")
    finally:
        os.close(folder)


def _take_file(folder: int, name: str, shown: str) -> bytes:
    """The content of a plain file, which is root's from now on. BadRequest beyond 1 MiB."""
    with os.fdopen(_open_plain(folder, name, shown), "rb") as stream:
        os.fchown(stream.fileno(), 0, 0)
        os.fchmod(stream.fileno(), 0o644)
        data = stream.read(image_metadata.MAX_BYTES + 1)
    if len(data) > image_metadata.MAX_BYTES:
        raise BadRequest(f"The image's {shown} is larger than {image_metadata.MAX_BYTES} bytes")
    return data


def _open_plain(folder: int, name: str, shown: str) -> int:
    """A descriptor of a regular file with this one name: a second hard link could be the instance's to write to."""
    file = _open(folder, name, _FILE, shown)
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        os.close(file)
        raise BadRequest(f"The image's {shown} is not a plain file")
    return file


def _open(folder: int, name: str, flags: int, shown: str) -> int:
    try:
        return os.open(name, flags, dir_fd=folder)
    except FileNotFoundError as error:
        raise BadRequest(f"The image has no {shown}") from error
    except OSError as error:  # ELOOP for a link, ENOTDIR for a file, ENXIO for a socket or a device
        raise BadRequest(f"The image's {shown} is not a plain file or folder") from error
