"""What kind of file an image's part is, by its first bytes, and the program that decompresses it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from atoll.domain.errors import BadRequest


class Kind(StrEnum):
    """The kinds of files that images are made of; the value is the end of such a file's name."""

    TAR = "tar"
    TAR_GZ = "tar.gz"
    TAR_BZ2 = "tar.bz2"
    TAR_XZ = "tar.xz"
    TAR_LZMA = "tar.lzma"
    TAR_ZST = "tar.zst"
    SQUASHFS = "squashfs"
    QCOW2 = "qcow2"

    @property
    def decompressor(self) -> Sequence[str] | None:
        """The command that turns its standard input into a plain tar stream; None where that is not needed or possible."""
        return _DECOMPRESSORS.get(self)


_DECOMPRESSORS = {
    Kind.TAR_GZ: ("gzip", "-dc"),
    Kind.TAR_BZ2: ("bzip2", "-dc"),
    Kind.TAR_XZ: ("xz", "-dc", "-T0", "--memlimit-decompress=1GiB"),
    Kind.TAR_LZMA: ("xz", "--format=lzma", "-dc", "--memlimit-decompress=1GiB"),
    Kind.TAR_ZST: ("zstd", "-dc", "--memory=1024MB"),
}

_MAGIC = (
    (b"\x1f\x8b", Kind.TAR_GZ),
    (b"BZh", Kind.TAR_BZ2),
    (b"\xfd7zXZ\0", Kind.TAR_XZ),
    (b"\x5d\0\0", Kind.TAR_LZMA),
    (b"\x28\xb5\x2f\xfd", Kind.TAR_ZST),
    (b"hsqs", Kind.SQUASHFS),
    (b"QFI\xfb", Kind.QCOW2),
)


def identify(path: Path) -> Kind:
    """The kind of that file. BadRequest if it is none of them. Blocking."""
    with path.open("rb") as file:
        head = file.read(512)
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if len(head) == 512 and (head[257:262] == b"ustar" or _is_old_tar(head)):
        return Kind.TAR
    raise BadRequest("Unsupported compression: the file is no tar archive, plain or compressed, and no squashfs")


def _is_old_tar(header: bytes) -> bool:
    """Tar before it had a magic is known by its checksum."""
    digits = header[148:156].strip(b" \0")
    total = sum(header[:148]) + sum(header[156:]) + 8 * 0x20
    return digits.isdigit() and not digits.strip(b"01234567") and int(digits, 8) == total
