"""Reading mountinfo, and what an overlay is refused before the kernel is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from atoll.domain.errors import Unsupported
from atoll.domain.idmap import IdMap, IdRange
from atoll.host import mount, userns

MOUNTINFO = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro
30 22 0:5 / /proc rw,nosuid - proc proc rw
41 22 0:68 / /srv/a\\040b\\134c/rootfs rw,relatime,idmapped shared:7 master:2 - overlay overlay rw,lowerdir=/x:/y
42 41 0:70 /sub /srv/a\\040b\\134c/rootfs/mnt ro - tmpfs none\\011x rw
43 22 0:71 / /srv/a\\040b rw - fuse.lxcfs lxcfs
"""


def test_a_line_is_read_with_any_number_of_tags() -> None:
    entries = mount.parse_mountinfo(MOUNTINFO)
    assert [entry.kind for entry in entries] == ["ext4", "proc", "overlay", "tmpfs", "fuse.lxcfs"]
    overlay = entries[2]
    assert (overlay.mount_id, overlay.parent_id, overlay.device) == (41, 22, "0:68")
    assert overlay.options == {"rw", "relatime", "idmapped"}
    assert overlay.super_options == "rw,lowerdir=/x:/y"
    assert entries[4].super_options == ""


def test_octal_escapes_are_undone() -> None:
    entries = mount.parse_mountinfo(MOUNTINFO)
    assert entries[2].target == Path("/srv/a b\\c/rootfs")
    assert entries[3].root == "/sub" and entries[3].source == "none\tx"


def test_mounts_below_a_path_are_not_those_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_bytes", lambda _path: MOUNTINFO.encode())
    below = mount.mounts_below(Path("/srv/a b\\c"))
    assert [entry.mount_id for entry in below] == [41, 42]
    assert [entry.mount_id for entry in mount.mounts_below(Path("/srv/a b"))] == [43]


@pytest.mark.parametrize("path", ["/a:b", "/a,b", "/a\\b"])
def test_an_overlay_refuses_what_its_options_cannot_say(path: str) -> None:
    with pytest.raises(Unsupported, match="may not have"):
        mount.overlay(Path("/nowhere"), ["/x", path])


def test_an_overlay_that_is_too_deep_is_refused() -> None:
    with pytest.raises(Unsupported, match="too deep"):
        mount.overlay(Path("/nowhere"), [f"/proc/self/fd/100/{number:012x}/fs" for number in range(200)])


def test_a_map_is_written_for_users_and_groups_apart() -> None:
    idmap = IdMap((IdRange(0, 1000000, 1000), IdRange(1000, 1000, 1, groups=False), IdRange(1001, 1001001, 64535, users=False)))
    assert userns.map_lines(idmap, groups=False) == "0 1000000 1000\n1000 1000 1\n"
    assert userns.map_lines(idmap, groups=True) == "0 1000000 1000\n1001 1001001 64535\n"
    assert (idmap.root, idmap.root_group) == (1000000, 1000000)


def test_a_map_without_root_says_so() -> None:
    with pytest.raises(KeyError, match="gid 0"):
        _ = IdMap((IdRange(0, 5, 1, groups=False),)).root_group
