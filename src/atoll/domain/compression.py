"""Compression of images and backups: a closed set with a level, never a command line.

LXD's `compression_algorithm` is a program with options; here the text is parsed into an enum member and a number, so that
nothing of it ever reaches an argv unchecked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from atoll.domain.errors import BadRequest


class Algorithm(StrEnum):
    """How a packed image is compressed; SQUASHFS is a file system instead of a tarball."""

    NONE = "none"
    GZIP = "gzip"
    BZIP2 = "bzip2"
    XZ = "xz"
    LZMA = "lzma"
    ZSTD = "zstd"
    SQUASHFS = "squashfs"

    @property
    def levels(self) -> range:
        """The levels it takes; empty where there is nothing to choose."""
        return _LEVELS[self]

    @property
    def extension(self) -> str:
        """What the name of a file made with it ends in."""
        return _EXTENSIONS[self]


_LEVELS = {
    Algorithm.NONE: range(0),
    Algorithm.GZIP: range(1, 10),
    Algorithm.BZIP2: range(1, 10),
    Algorithm.XZ: range(10),
    Algorithm.LZMA: range(10),
    Algorithm.ZSTD: range(1, 20),
    Algorithm.SQUASHFS: range(0),
}

_EXTENSIONS = {
    Algorithm.NONE: "tar",
    Algorithm.GZIP: "tar.gz",
    Algorithm.BZIP2: "tar.bz2",
    Algorithm.XZ: "tar.xz",
    Algorithm.LZMA: "tar.lzma",
    Algorithm.ZSTD: "tar.zst",
    Algorithm.SQUASHFS: "squashfs",
}


@dataclass(frozen=True, slots=True)
class Compression:
    """An algorithm and its level; None leaves the level to the algorithm's own default. `rsyncable`: so that a small change of
    what is packed is a small change of the file."""

    algorithm: Algorithm
    level: int | None = None
    rsyncable: bool = False

    @property
    def options(self) -> list[str]:
        """As arguments of the program that is named as the algorithm."""
        return [*([] if self.level is None else [f"-{self.level}"]), *([RSYNCABLE] if self.rsyncable else [])]

    def __str__(self) -> str:
        return " ".join([self.algorithm.value, *self.options])


GZIP = Compression(Algorithm.GZIP)
NONE = Compression(Algorithm.NONE)
ZSTD = Compression(Algorithm.ZSTD, 3)

RSYNCABLE = "--rsyncable"
_RSYNCABLE = (Algorithm.GZIP, Algorithm.ZSTD)
_OTHER_NAMES = {"pigz": "gzip"}
_TEXT = re.compile(rf"([a-z0-9]{{2,10}})(?: -([0-9]{{1,2}}))?( {RSYNCABLE})?")


def parse(text: str) -> Compression:
    """`zstd`, `gzip -9`, `gzip --rsyncable` …; `pigz` is gzip. BadRequest for an algorithm or option that is not on the list."""
    match = _TEXT.fullmatch(text)
    known = [algorithm.value for algorithm in Algorithm]
    name = _OTHER_NAMES.get(match[1], match[1]) if match is not None else ""
    if match is None or name not in known:
        raise BadRequest(
            f"Invalid compression algorithm {text[:40]!r}", hint=f"known are {', '.join(known)}, with a level as in 'zstd -3'"
        )
    algorithm = Algorithm(name)
    level = None if match[2] is None else int(match[2])
    if level is not None and level not in algorithm.levels:
        raise BadRequest(f"Compression algorithm {algorithm} has no level {level}")
    if match[3] and algorithm not in _RSYNCABLE:
        raise BadRequest(f"Compression algorithm {algorithm} has no option {RSYNCABLE}")
    return Compression(algorithm, level, rsyncable=bool(match[3]))
