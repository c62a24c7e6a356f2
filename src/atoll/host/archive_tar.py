"""Reads the headers of a tar stream from a stranger and passes on only what belongs in an image.

What leaves `filter_stream` is a tar stream again, made of the members' own bytes, for `tar` in its jail to unpack. What tar
is good at (sparse files, extended attributes, speed) stays with it; what it cannot do is decided here, before it sees a
member: budgets, names, kinds and doubles. A member is

    kept      part of the image
    dropped   nothing an image has: device nodes, what is in /dev, files beside rootfs, metadata.yaml and templates
    refused   a sign of a crafted or broken archive: `..` in names, links where files must be, two metadata.yaml,
              false checksums, a missing end; BadRequest ends the whole archive

Blocking: runs in a worker thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import BinaryIO, Protocol

from atoll.domain.errors import BadRequest, Cancelled, TooLarge, Unsupported

BLOCK = 512
MAX_EXTENSION = 1 << 20
MAX_NAME = 4096
MAX_DEPTH = 128
MAX_TEMPLATES = 1000
_PIECE = 1 << 18


class Layout(Enum):
    """What an archive holds: a whole image, its metadata half or its root file system half."""

    UNIFIED = auto()
    METADATA = auto()
    ROOTFS = auto()


@dataclass(frozen=True, slots=True)
class Budget:
    """How much an archive may unpack to. `file_bytes` limits one file, holes included; `seconds` the whole unpack."""

    bytes: int = 64 << 30
    entries: int = 4_000_000
    file_bytes: int = 16 << 40
    seconds: float = 3600.0


class Source:
    """A blocking stream with a budget of bytes. `stop`, from another thread, ends the reading at the next piece."""

    def __init__(self, stream: BinaryIO, budget: Budget) -> None:
        self._stream = stream
        self._left = budget.bytes
        self._stopped = False

    def stop(self) -> None:
        """Nobody waits for the rest any more."""
        self._stopped = True

    def exactly(self, size: int) -> bytes:
        """That many bytes. BadRequest if the stream ends before, TooLarge beyond the budget."""
        self._left -= size
        if self._left < 0:
            raise TooLarge("The archive is larger than allowed when unpacked")
        if self._stopped:
            raise Cancelled("Reading the image was cancelled")
        data = self._stream.read(size)
        if len(data) != size:
            raise BadRequest("The archive is truncated")
        return data

    def pieces(self, size: int) -> Iterator[bytes]:
        """That many bytes, piece by piece."""
        while size > 0:
            piece = self.exactly(min(size, _PIECE))
            size -= len(piece)
            yield piece

    def drain(self) -> None:
        """Read what follows the end marker, so that the decompressor reaches its own checksum."""
        while data := self._stream.read(_PIECE):
            self._left -= len(data)
            if self._left < 0 or self._stopped:
                raise TooLarge("The archive is larger than allowed when unpacked")


@dataclass(slots=True)
class Member:
    """A member's effective header. `head` are the raw blocks from its extension headers up to its content.

    `stored` is the size of what follows in the stream, padding not included, `apparent` that of a sparse file with its holes;
    `name` is relative, without `./` and trailing slashes, `spelled` as it is written; `link` is what a link leads to.
    """

    kind: bytes = b"0"
    name: bytes = b""
    spelled: bytes = b""
    link: bytes = b""
    stored: int = 0
    apparent: int = 0
    head: list[bytes] = field(default_factory=list)

    @property
    def padded(self) -> int:
        """The number of bytes until the next header."""
        return -(-self.stored // BLOCK) * BLOCK


LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY = b"1", b"2", b"3", b"4", b"5"
FILES = (b"0", b"\0", b"7", b"S")
_WITHOUT_CONTENT = (LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, b"6")
_KNOWN = (*FILES, *_WITHOUT_CONTENT)


def members(source: Source, budget: Budget) -> Iterator[Member]:
    """The members up to the end marker. The caller consumes each one's `padded` bytes before the next."""
    entries = 0
    while (member := _next_member(source)) is not None:
        entries += 1
        if entries > budget.entries:
            raise TooLarge(f"The archive has more than {budget.entries} files")
        if max(member.stored, member.apparent) > budget.file_bytes:
            raise TooLarge(f"The archive has a file of more than {budget.file_bytes} bytes")
        yield member


def _next_member(source: Source) -> Member | None:
    """One member with its extension headers; None at the end marker."""
    member = Member()
    extended: dict[bytes, bytes] = {}
    while True:
        header = source.exactly(BLOCK)
        if not header.strip(b"\0"):
            if member.head:
                raise BadRequest("The archive ends within a member")
            return None
        _verify(header)
        kind, size = header[156:157], number(header[124:136])
        if kind not in b"xgLK":
            return _complete(source, member, header, extended)
        if size > MAX_EXTENSION:
            raise BadRequest("The archive has an extension header beyond 1 MiB")
        padded = source.exactly(-(-size // BLOCK) * BLOCK)
        if kind == b"g":
            continue  # comments of the archive's maker; what else they could set is not wanted
        member.head += (header, padded)
        for key, value in _extension(kind, padded[:size]):
            if kind != b"x" and key in extended:
                raise BadRequest("The archive names a member twice")
            extended[key] = value


def _extension(kind: bytes, data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """What an extension header says, as pax records."""
    if kind == b"L":
        yield b"path", data.rstrip(b"\0")
    elif kind == b"K":
        yield b"linkpath", data.rstrip(b"\0")
    else:
        yield from pax_records(data)


def pax_records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """`<length> <key>=<value>\\n` records; lengths count the whole record."""
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 12)
        length = digits(data[at:space]) if space > 0 else 0
        record = data[at : at + length]
        key, equals, value = record[space - at + 1 : -1].partition(b"=")
        if not equals or not record.endswith(b"\n") or len(record) != length:
            raise BadRequest("The archive has a malformed pax header")
        yield key, value
        at += length


def _complete(source: Source, member: Member, header: bytes, extended: dict[bytes, bytes]) -> Member:
    """Fill in the member from its main header and what its extension headers said."""
    member.head.append(header)
    member.kind = header[156:157]
    prefix = header[345:500].split(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    name = header[:100].split(b"\0")[0]
    name = extended.get(b"GNU.sparse.name", extended.get(b"path", prefix + b"/" + name if prefix else name))
    if member.kind in (b"0", b"\0") and name.endswith(b"/"):
        member.kind = DIRECTORY
    member.name, member.spelled = clean_name(name), name
    member.link = extended.get(b"linkpath", header[157:257].split(b"\0")[0])
    if member.kind not in _KNOWN:
        raise BadRequest(f"The archive has a member of unknown kind {member.kind!r}")
    if member.kind != LINK:  # some writers note the size of a hard link's file; no content follows
        member.stored = digits(extended[b"size"]) if b"size" in extended else number(header[124:136])
    if member.stored and member.kind in _WITHOUT_CONTENT:
        raise BadRequest(f"The archive has content where none belongs: {shown(member.name)}")
    for key in (b"GNU.sparse.realsize", b"GNU.sparse.size"):
        if key in extended:
            member.apparent = digits(extended[key])
    if member.kind == b"S":
        member.apparent = number(header[483:495])
        more = header[482]
        while more:  # the old sparse format continues its map in blocks before the content
            member.head.append(source.exactly(BLOCK))
            more = member.head[-1][504]
            if len(member.head) * BLOCK > MAX_EXTENSION:
                raise BadRequest("The archive has a sparse map beyond 1 MiB")
    return member


def _verify(header: bytes) -> None:
    if number(header[148:156]) != sum(header[:148]) + sum(header[156:]) + 8 * 0x20:
        raise BadRequest("The archive has a header with a false checksum: it is damaged or no tar archive")


def number(text: bytes) -> int:
    """A number field: octal digits, or base 256 when its first bit is set."""
    if text[0] & 0x80:
        if text[0] != 0x80:
            raise BadRequest("The archive has a negative or absurd size")
        return int.from_bytes(text[1:], "big")
    digits = text.strip(b" \0")
    if not digits:
        return 0
    if len(digits.strip(b"01234567")):
        raise BadRequest("The archive has a number that is not octal")
    return int(digits, 8)


def digits(text: bytes) -> int:
    if not text.isdigit() or len(text) > 19:
        raise BadRequest("The archive has a malformed pax number")
    return int(text)


def clean_name(name: bytes) -> bytes:
    """The name relative to the archive's top. BadRequest if it could lead out of it or is longer than a path can be.

    A leading slash means the archive's top, as it does to tar (which is never told --absolute-names) and so to LXD.
    """
    if len(name) > MAX_NAME or b"\0" in name:
        raise BadRequest(f"The archive has an overlong name: {shown(name)}")
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts or len(parts) > MAX_DEPTH:
        raise BadRequest(f"The archive has a name that leads out of it or is too deep: {shown(name)}")
    return b"/".join(parts)


def shown(name: bytes) -> str:
    return repr(name[:100].decode(errors="replace"))


class Rules:
    """Decides which members of an archive are kept."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._seen: set[bytes] = set()
        self._has_rootfs = False

    def check_complete(self) -> None:
        """At the end: BadRequest if the archive lacks what its layout is for."""
        if self._layout is not Layout.ROOTFS and b"metadata.yaml" not in self._seen:
            raise BadRequest("The archive has no metadata.yaml")
        if self._layout is not Layout.METADATA and not self._has_rootfs:
            raise BadRequest("The archive has no rootfs")

    def keeps(self, member: Member) -> bool:
        """True to pass the member on, False to drop it; BadRequest or Unsupported to refuse the archive."""
        if member.kind in (CHARACTER, BLOCK_DEVICE):
            return False
        if self._layout is Layout.ROOTFS:
            return self._keeps_in_rootfs(member, member.name, b"")
        top, _, rest = member.name.partition(b"/")
        if top == b"metadata.yaml" or top == b"templates":
            return self._keeps_metadata(member, rest)
        if self._layout is Layout.METADATA:
            return False
        if top == b"rootfs.img":
            raise Unsupported("The image is one of a virtual machine")
        if top != b"rootfs":
            return False
        if not rest and member.kind != DIRECTORY:
            raise BadRequest("The archive's rootfs is not a directory")
        return self._keeps_in_rootfs(member, rest, b"rootfs/")

    def _keeps_metadata(self, member: Member, rest: bytes) -> bool:
        """metadata.yaml is one regular file; templates is one folder of regular files."""
        allowed = (DIRECTORY,) if member.name == b"templates" else FILES
        if member.kind not in allowed or b"/" in rest or member.name.startswith(b"metadata.yaml/"):
            raise BadRequest(f"The archive's {shown(member.name)} is not a plain file or folder")
        if member.name in self._seen and member.kind != DIRECTORY:
            raise BadRequest(f"The archive has {shown(member.name)} twice")
        if len(self._seen) > MAX_TEMPLATES:
            raise BadRequest(f"The archive has more than {MAX_TEMPLATES} templates")
        self._seen.add(member.name)
        return True

    def _keeps_in_rootfs(self, member: Member, name: bytes, top: bytes) -> bool:
        """Everything but the content of /dev; a hard link must stay in the root file system."""
        self._has_rootfs = True
        if name.startswith(b"dev/"):
            return False
        if member.kind == LINK and not clean_name(member.link).startswith(top):
            raise BadRequest(f"The archive has a hard link that leads out of its rootfs: {shown(member.name)}")
        return True


class Filter(Protocol):
    """Decides which members of an archive are kept; see `Rules`."""

    def keeps(self, member: Member) -> bool:
        """True to pass the member on, False to drop it; BadRequest or Unsupported to refuse the archive."""

    def check_complete(self) -> None:
        """At the end: BadRequest if something is missing."""


def filter_stream(
    source: Source,
    rules: Filter,
    budget: Budget,
    write: Callable[[bytes], object],
    *,
    rewrite: Callable[[Sequence[bytes]], Sequence[bytes]] | None = None,
) -> None:
    """Pass on the kept members of the stream, their heads rewritten by that function, with an end marker."""
    for member in members(source, budget):
        kept = rules.keeps(member)
        if kept:
            for block in rewrite(member.head) if rewrite is not None else member.head:
                write(block)
        for piece in source.pieces(member.padded):
            if kept:
                write(piece)
    rules.check_complete()
    write(bytes(2 * BLOCK))
    source.drain()


def find_file(source: Source, name: bytes, budget: Budget, *, limit: int) -> bytes | None:
    """The content of the first regular member of that name, None if there is none. TooLarge beyond `limit` bytes."""
    for member in members(source, budget):
        if member.name == name:
            if member.kind not in (b"0", b"\0"):
                raise BadRequest(f"The archive's {shown(name)} is not a plain file")
            if member.stored > limit:
                raise TooLarge(f"The archive's {shown(name)} is larger than {limit} bytes")
            return source.exactly(member.stored)
        for _ in source.pieces(member.padded):
            pass
    return None
