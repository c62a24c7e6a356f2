"""Tar archives as raw blocks, for what no program that writes archives would make."""

from __future__ import annotations

import tarfile

END = bytes(1024)


def member(
    name: str, kind: bytes = tarfile.REGTYPE, *, data: bytes = b"", link: str = "", ids: tuple[int, int] = (0, 0),
    pax: dict[str, str] | None = None, format: int = tarfile.PAX_FORMAT,
) -> bytes:  # fmt: skip
    """A member's head and its data."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname, info.mode = kind, len(data), link, 0o755 if kind == tarfile.DIRTYPE else 0o644
    info.pax_headers, (info.uid, info.gid) = pax or {}, ids
    return info.tobuf(format) + data + bytes(-len(data) % 512)
