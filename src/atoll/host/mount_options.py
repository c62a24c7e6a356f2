"""Words of mount options, and which of them are the mount's own. Pure; imports next to nothing, as workers use it too."""

from __future__ import annotations

from collections.abc import Iterable

from atoll.host import syscalls

_ATTRIBUTES = {
    "ro": syscalls.MOUNT_ATTR_RDONLY,
    "nosuid": syscalls.MOUNT_ATTR_NOSUID,
    "nodev": syscalls.MOUNT_ATTR_NODEV,
    "noexec": syscalls.MOUNT_ATTR_NOEXEC,
    "noatime": syscalls.MOUNT_ATTR_NOATIME,
    "strictatime": syscalls.MOUNT_ATTR_STRICTATIME,
    "nodiratime": syscalls.MOUNT_ATTR_NODIRATIME,
    "nosymfollow": syscalls.MOUNT_ATTR_NOSYMFOLLOW,
}
_USUAL = frozenset(
    ("atime", "bind", "create=dir", "create=file", "defaults", "dev", "diratime", "exec", "optional", "rbind", "relatime", "rw",
     "suid", "symfollow")
)  # fmt: skip
"""What a mount is anyway, and words for others than the kernel."""

PROPAGATIONS = {
    "private": syscalls.MS_PRIVATE,
    "shared": syscalls.MS_SHARED,
    "slave": syscalls.MS_SLAVE,
    "unbindable": syscalls.MS_UNBINDABLE,
}
"""Each also with an `r` before it: for the mounts below, too."""


def attributes(words: Iterable[str]) -> int:
    """The MOUNT_ATTR_* that these words stand for; others are passed over."""
    found = 0
    for word in words:
        found |= _ATTRIBUTES.get(word, 0)
    return found


def of_filesystem(words: Iterable[str]) -> list[str]:
    """Those that are no mount's own but a file system's."""
    return [word for word in words if word not in _ATTRIBUTES and word not in _USUAL and not propagation([word])[0]]


def propagation(words: Iterable[str]) -> tuple[int, bool]:
    """The MS_* of the last word that is about sharing, and whether it goes for the mounts below; (0, False) without one."""
    kind, recursive = 0, False
    for word in words:
        for name, value in PROPAGATIONS.items():
            if word in (name, f"r{name}"):
                kind, recursive = value, word != name
    return kind, recursive
