"""Makes what LXD writes into an archive what is to be on disk here, header by header.

LXD without idmapped mounts keeps files with the host's ids of the instance, and so they are in its archives. Here files have
the ids that the instance sees: owners, ids in POSIX ACLs and the root of file capabilities become those. An id that the
instance cannot see is `nobody`'s there, and becomes that. And LXD stores ACLs as the kernel has them, which tar passes over:
they are spelled out.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Sequence

from atoll.domain.errors import BadRequest
from atoll.domain.idmap import IdMap
from atoll.host.archive_tar import BLOCK, digits, number, pax_records

NOBODY = 65534

_CAPABILITY = b"SCHILY.xattr.security.capability"
_TEXT_ACLS = (b"SCHILY.acl.access", b"SCHILY.acl.default")
_ACLS = dict(zip((b"SCHILY.xattr.system.posix_acl_access", b"SCHILY.xattr.system.posix_acl_default"), _TEXT_ACLS, strict=True))
_ACL_TAGS = {1: b"user", 2: b"user", 4: b"group", 8: b"group", 0x10: b"mask", 0x20: b"other"}
_TEXT_ENTRY = re.compile(rb"((?:default:)?(user|group):)([0-9]{1,10})(?=:)")
_CAPS_3, _CAPS_REVISION, _CAPS_2 = 0x03000000, 0xFF000000, 0x02000000
_ACL_USER, _ACL_GROUP = 2, 8
_UID, _GID, _SIZE, _CHECKSUM = slice(108, 116), slice(116, 124), slice(124, 136), slice(148, 156)


class Unshift:
    """Rewrites the heads of members, from the host's ids of one map to the instance's; without a map ids stay."""

    def __init__(self, idmap: IdMap | None) -> None:
        self._is_shifted = idmap is not None
        self._users = _reverse(idmap, groups=False)
        self._groups = _reverse(idmap, groups=True)

    def rewrite(self, head: Sequence[bytes]) -> Sequence[bytes]:
        """The blocks of a member's head (see `archive_tar.Member`), changed."""
        if not self._is_shifted and len(head) == 1:
            return head
        result: list[bytes] = []
        owner: dict[bytes, int] = {}
        blocks = iter(head)
        for header in blocks:
            kind = header[156:157]
            if kind == b"x":
                data = next(blocks)[: number(header[_SIZE])]
                result += self._extension(header, data, owner)
            elif kind in b"LK":
                result += (header, next(blocks))
            else:
                result.append(self._main(header, owner))
                result += blocks  # the rest of an old sparse map
        return result

    def _main(self, header: bytes, owner: dict[bytes, int]) -> bytes:
        uid = owner.get(b"uid", number(header[_UID]))
        gid = owner.get(b"gid", number(header[_GID]))
        return _with(header, (_UID, _field(self._users(uid), 8)), (_GID, _field(self._groups(gid), 8)))

    def _extension(self, header: bytes, data: bytes, owner: dict[bytes, int]) -> Sequence[bytes]:
        """A pax header without owners, which are told in `owner`, and with ids of the instance elsewhere."""
        kept = b""
        for key, value in pax_records(data):
            if key in (b"uid", b"gid"):
                owner[key] = digits(value)
            elif key in _ACLS:
                kept += _record(_ACLS[key], b",".join(self._acl(value)))
            elif key not in (b"uname", b"gname") and (changed := self._value(key, value)) is not None:
                kept += _record(key, changed)
        if not kept:
            return ()
        return _with(header, (_SIZE, _field(len(kept), 12))), kept + bytes(-len(kept) % BLOCK)

    def _value(self, key: bytes, value: bytes) -> bytes | None:
        """A record's value; None to drop it."""
        if key == _CAPABILITY and self._is_shifted:
            return self._capability(value)
        if key in _TEXT_ACLS:
            return _TEXT_ENTRY.sub(self._text_entry, value)
        return value

    def _capability(self, value: bytes) -> bytes | None:
        """Capabilities of a user namespace's root become plain ones. Others had no effect in the instance."""
        if len(value) != 24:
            return None
        magic, *words, root = struct.unpack("<6I", value)
        if magic & _CAPS_REVISION != _CAPS_3 or self._users(root) != 0:
            return None
        return struct.pack("<5I", (magic & ~_CAPS_REVISION) | _CAPS_2, *words)

    def _acl(self, value: bytes) -> Iterator[bytes]:
        """The entries of the kernel's form (a version, then tag, permissions and id of each) as text."""
        for at in range(4, len(value) - 7, 8):
            tag, permissions, id_ = struct.unpack_from("<HHI", value, at)
            if tag not in _ACL_TAGS:
                raise BadRequest("The archive has a malformed access control list")
            who = b""
            if tag in (_ACL_USER, _ACL_GROUP):
                who = str((self._users if tag == _ACL_USER else self._groups)(id_)).encode()
            letters = bytes(letter if permissions & bit else 0x2D for letter, bit in zip(b"rwx", (4, 2, 1), strict=True))
            yield b"%b:%b:%b" % (_ACL_TAGS[tag], who, letters)

    def _text_entry(self, match: re.Match[bytes]) -> bytes:
        to = self._users if match[2] == b"user" else self._groups
        return match[1] + str(to(int(match[3]))).encode()


def _reverse(idmap: IdMap | None, *, groups: bool) -> Callable[[int], int]:
    """From ids of the host to those of the instance."""
    if idmap is None:
        return lambda id_: id_
    ranges = [(each.outside, each.inside, each.count) for each in idmap.ranges if (each.groups if groups else each.users)]

    def inside(id_: int) -> int:
        return next((id_ - outside + first for outside, first, count in ranges if outside <= id_ < outside + count), NOBODY)

    return inside


def _with(header: bytes, *fields: tuple[slice, bytes]) -> bytes:
    """A header with other fields, and the checksum for them."""
    changed = bytearray(header)
    for place, field in fields:
        changed[place] = field
    changed[_CHECKSUM] = b" " * 8
    changed[_CHECKSUM] = b"%06o\0 " % sum(changed)
    return bytes(changed)


def _field(value: int, width: int) -> bytes:
    """A number in a header: octal, or base 256 if it is too large for that."""
    if value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return b"\x80" + value.to_bytes(width - 1, "big")


def _record(key: bytes, value: bytes) -> bytes:
    """A pax record: its length counts itself."""
    body = b" %b=%b\n" % (key, value)
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length += 1
    return b"%d%b" % (length, body)
