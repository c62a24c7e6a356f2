"""Words of mount options."""

from __future__ import annotations

import pytest

from atoll.host import mount_options, syscalls


def test_words_of_the_mount_and_of_the_file_system() -> None:
    words = ["ro", "noexec", "rbind", "uid=123", "discard", "rshared", "relatime", "create=dir"]
    assert mount_options.attributes(words) == syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NOEXEC
    assert mount_options.of_filesystem(words) == ["uid=123", "discard"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], (0, False)),
        (["ro", "shared"], (syscalls.MS_SHARED, False)),
        (["rslave"], (syscalls.MS_SLAVE, True)),
        (["rprivate", "unbindable"], (syscalls.MS_UNBINDABLE, False)),
    ],
)
def test_propagation(words: list[str], found: tuple[int, bool]) -> None:
    assert mount_options.propagation(words) == found
