"""Archives of backups: volumes with shifted ids come out plain, and crafted archives do no harm and leave nothing."""

from __future__ import annotations

import gzip
import os
import struct
import tarfile
from pathlib import Path

import pytest
import zstandard
from tar_blocks import END, member

from atoll.domain.compression import Algorithm, Compression
from atoll.domain.errors import AtollError, BadRequest, NotFound, TooLarge
from atoll.domain.idmap import IdMap, IdRange
from atoll.host import archive_backup, archive_pack, process
from atoll.host.archive_backup import VOLUME
from atoll.host.archive_sandbox import Bind
from atoll.host.archive_tar import Budget

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="unpacking keeps owners, which takes root")

INDEX_TEXT = b"name: c1\nbackend: dir\npool: p\nsnapshots: []\ntype: container\n"
SHIFT = IdMap((IdRange(0, 100_000, 65_536), IdRange(65_536, 3_000_000_000, 10)))
CAPS_2 = bytes.fromhex("0100000200040000000000000000000000000000")
ACL_HEADS = struct.pack("<HHI", 1, 6, 2**32 - 1), struct.pack("<HHI", 0x10, 6, 2**32 - 1), struct.pack("<HHI", 0x20, 4, 2**32 - 1)


def xattr(name: str, key: bytes, value: bytes) -> bytes:
    """A pax header with an attribute of any bytes, before its member."""
    body = b" SCHILY.xattr." + key + b"=" + value + b"\n"
    length = next(n for n in range(len(body), len(body) + 9) if len(str(n)) + len(body) == n)
    return member("PaxHeaders/x", tarfile.XHDTYPE, data=str(length).encode() + body) + member(
        name, data=b"x", ids=(100_000, 100_000)
    )


INDEX = member("backup/index.yaml", data=INDEX_TEXT)
ROOTFS = member(f"{VOLUME}/rootfs", tarfile.DIRTYPE, ids=(100_000, 100_000))


def write(tmp_path: Path, *parts: bytes) -> Path:
    path = tmp_path / "backup.tar"
    path.write_bytes(b"".join(parts))
    return path


def tree(top: Path) -> set[str]:
    return {str(path.relative_to(top)) for path in top.rglob("*")}


async def unpack(path: Path, target: Path, *, shifted: IdMap | None = None, budget: Budget | None = None) -> None:
    await archive_backup.unpack_volume(path, VOLUME, target, shifted=shifted, budget=budget or Budget())


async def refused(path: Path, target: Path, kind: type[AtollError], says: str = ".", budget: Budget | None = None) -> None:
    with pytest.raises(kind, match=says):
        await unpack(path, target, budget=budget)
    assert tree(target) == {"rootfs"}


# Ids


@pytest.mark.parametrize(
    ("ids", "found"),
    [
        ((100_000, 100_000), (0, 0)),
        ((101_000, 100_033), (1000, 33)),
        ((3_000_000_009, 165_535), (65_545, 65_535)),
        ((0, 99_999), (65_534, 65_534)),
        ((165_536, 2_999_999_999), (65_534, 65_534)),
    ],
)
@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
async def test_shifted_ids(ids: tuple[int, int], found: tuple[int, int], format: int, tmp_path: Path, target: Path) -> None:
    long = "n" * 120
    file = member(f"{VOLUME}/rootfs/{long}", data=b"data", ids=ids, format=format)
    await unpack(write(tmp_path, INDEX, ROOTFS, file, END), target, shifted=SHIFT)
    made = (target / "rootfs" / long).lstat()
    assert (made.st_uid, made.st_gid) == found and (target / "rootfs" / long).read_bytes() == b"data"
    assert (target / "rootfs").stat().st_uid == 0


async def test_plain_ids_stay(tmp_path: Path, target: Path) -> None:
    file = member(f"{VOLUME}/rootfs/a", ids=(100_000, 7))
    await unpack(write(tmp_path, INDEX, ROOTFS, file, END), target)
    assert ((target / "rootfs/a").stat().st_uid, (target / "rootfs/a").stat().st_gid) == (100_000, 7)


@pytest.mark.parametrize(("root", "kept"), [(100_000, True), (0, False), (101_000, False)])
async def test_capabilities_of_a_shifted_root(root: int, kept: bool, tmp_path: Path, target: Path) -> None:
    shifted = struct.pack("<6I", 0x03000001, 0x400, 0, 0, 0, root)
    parts = INDEX, ROOTFS, xattr(f"{VOLUME}/rootfs/ping", b"security.capability", shifted), END
    await unpack(write(tmp_path, *parts), target, shifted=SHIFT)
    file = target / "rootfs/ping"
    assert (os.getxattr(file, "security.capability") == CAPS_2) if kept else (os.listxattr(file) == [])


async def test_ids_in_acls(tmp_path: Path, target: Path) -> None:
    first, mask, last = ACL_HEADS
    entries = first, struct.pack("<HHI", 2, 6, 101_000), struct.pack("<HHI", 4, 4, 2**32 - 1), mask, last
    text = xattr(f"{VOLUME}/rootfs/a", b"system.posix_acl_access", struct.pack("<I", 2) + b"".join(entries))
    await unpack(write(tmp_path, INDEX, ROOTFS, text, END), target, shifted=SHIFT)
    said = await process.run(["getfacl", "-n", "-c", str(target / "rootfs/a")])
    assert "user:1000:rw-" in str(said)


# What is unpacked


async def test_only_the_volume_comes_out(tmp_path: Path, target: Path) -> None:
    parts = (
        INDEX,
        member("backup/snapshots/s0/rootfs", tarfile.DIRTYPE),
        member("backup/snapshots/s0/rootfs/old"),
        member(VOLUME, tarfile.DIRTYPE),
        member(f"{VOLUME}/backup.yaml", data=b"x"),
        member(f"{VOLUME}/metadata.yaml", data=b"not: metadata", ids=(5, 5)),
        member(f"{VOLUME}/templates", tarfile.DIRTYPE),
        member(f"{VOLUME}/templates/a.tpl", data=b"t"),
        ROOTFS,
        member(f"{VOLUME}/rootfs/a", data=b"1"),
        member(f"{VOLUME}/rootfs/b", tarfile.LNKTYPE, link=f"{VOLUME}/rootfs/a"),
        member(f"{VOLUME}/rootfs/null", tarfile.CHRTYPE),
        member(f"{VOLUME}/rootfs/etc", tarfile.SYMTYPE, link="/etc"),
        END,
    )
    await unpack(write(tmp_path, *parts), target)
    assert tree(target) == {"metadata.yaml", "rootfs", "rootfs/a", "rootfs/b", "rootfs/etc", "templates", "templates/a.tpl"}
    assert (target / "rootfs/a").samefile(target / "rootfs/b") and (target / "metadata.yaml").stat().st_uid == 0


async def test_a_squashfs_is_made_a_tar(tmp_path: Path, target: Path) -> None:
    source = tmp_path / "source"
    (source / VOLUME / "rootfs").mkdir(parents=True)
    (source / VOLUME / "rootfs/a").write_text("1")
    os.chown(source / VOLUME / "rootfs/a", 101_000, 100_000)
    (source / "backup/index.yaml").write_bytes(INDEX_TEXT)
    squashfs = tmp_path / "backup.squashfs"
    await archive_pack.pack_tar(
        [Bind(source / "backup", "backup")], ["backup"], squashfs, compression=Compression(Algorithm.SQUASHFS)
    )
    assert (await archive_backup.read_index(squashfs, Budget())).name == "c1"
    made = await archive_backup.as_tar(squashfs, tmp_path, Budget())
    await unpack(made, target, shifted=SHIFT)
    assert ((target / "rootfs/a").stat().st_uid, (target / "rootfs/a").read_text()) == (1000, "1")
    with pytest.raises(TooLarge):
        await archive_backup.as_tar(squashfs, target, Budget(entries=2))


# Crafted archives


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([member(f"{VOLUME}/rootfs/../../x")], "leads out"),
        ([member(f"./{VOLUME}/rootfs/x")], "strangely"),
        ([member("backup//container/rootfs/x")], "strangely"),
        ([member(f"{VOLUME}/rootfs/x", tarfile.LNKTYPE, link="/etc/passwd")], "hard link"),
        ([member(f"{VOLUME}/rootfs/x", tarfile.LNKTYPE, link="backup/index.yaml")], "hard link"),
        ([member(f"{VOLUME}/rootfs/x", tarfile.LNKTYPE, link="backup/snapshots/s0/rootfs/x")], "hard link"),
        ([member(f"{VOLUME}/rootfs/x", tarfile.LNKTYPE, link=f"{VOLUME}/metadata.yaml")], "hard link"),
        ([member(f"{VOLUME}/rootfs/x", tarfile.LNKTYPE, link=f"{VOLUME}/rootfs/../../../x")], "leads out"),
        ([member(f"{VOLUME}/metadata.yaml", tarfile.SYMTYPE, link="/etc/passwd")], "plain"),
        ([member(f"{VOLUME}/metadata.yaml", tarfile.FIFOTYPE)], "plain"),
        ([member(f"{VOLUME}/metadata.yaml"), member(f"{VOLUME}/metadata.yaml")], "twice"),
        ([member(f"{VOLUME}/templates", tarfile.SYMTYPE, link="/etc")], "plain"),
        ([member(f"{VOLUME}/templates/a", tarfile.SYMTYPE, link="/etc/passwd")], "plain"),
        ([member(f"{VOLUME}/templates/a/b")], "plain"),
        ([member(f"{VOLUME}/rootfs", tarfile.SYMTYPE, link="/")], "not a directory"),
        ([member("x" * 300, pax={"path": f"{VOLUME}/rootfs/" + "d/" * 200})], "too deep"),
    ],
)  # fmt: skip
async def test_members_that_lead_out(parts: list[bytes], says: str, tmp_path: Path, target: Path, canary: Path) -> None:
    await refused(write(tmp_path, INDEX, ROOTFS, *parts, END), target, BadRequest, says)


@pytest.mark.parametrize("to", ["/", "..", "{canary}"])
async def test_writing_through_a_link(to: str, tmp_path: Path, target: Path, canary: Path) -> None:
    link = member(f"{VOLUME}/rootfs/link", tarfile.SYMTYPE, link=to.format(canary=canary.parent))
    below = member(f"{VOLUME}/rootfs/link/canary", data=b"overwritten")
    with pytest.raises(AtollError):
        await unpack(write(tmp_path, INDEX, ROOTFS, link, below, END), target)
    assert tree(target) == {"rootfs"}


async def test_a_backup_without_its_volume(tmp_path: Path, target: Path) -> None:
    await refused(write(tmp_path, INDEX, member("backup/container.bin"), END), target, BadRequest, "no backup/container/rootfs")


@pytest.mark.parametrize("part", range(1, 10))
async def test_truncated(part: int, tmp_path: Path, target: Path) -> None:
    whole = gzip.compress(INDEX + ROOTFS + member(f"{VOLUME}/rootfs/a", data=os.urandom(20_000)) + END)
    path = write(tmp_path, whole[: len(whole) * part // 10])
    await refused(path, target, BadRequest)


async def test_bombs(tmp_path: Path, target: Path) -> None:
    zeros = member(f"{VOLUME}/rootfs/a", data=bytes(64 << 20))
    await refused(
        write(tmp_path, zstandard.compress(INDEX + ROOTFS + zeros + END)), target, TooLarge, budget=Budget(bytes=8 << 20)
    )
    many = ROOTFS + member(f"{VOLUME}/rootfs/a") * 3000
    await refused(write(tmp_path, INDEX, many, END), target, TooLarge, budget=Budget(entries=2000))
    with pytest.raises(TooLarge):
        await archive_backup.read_index(write(tmp_path, gzip.compress(zeros + INDEX + END)), Budget(bytes=8 << 20))
    long = member("backup/index.yaml", data=INDEX_TEXT + b"#" * (2 << 20))
    with pytest.raises(TooLarge):
        await archive_backup.read_index(write(tmp_path, long, END), Budget())


@pytest.mark.parametrize(
    "parts",
    [[], [ROOTFS], [member("backup/index.yaml", tarfile.SYMTYPE, link="/etc/passwd")], [member("index.yaml", data=INDEX_TEXT)]],
)
async def test_no_index(parts: list[bytes], tmp_path: Path) -> None:
    with pytest.raises(BadRequest):
        await archive_backup.read_index(write(tmp_path, *parts, END), Budget())


async def test_a_stream_is_taken_out_as_a_new_file(tmp_path: Path, canary: Path) -> None:
    path = write(tmp_path, INDEX, member("backup/container.bin", data=b"stream"), END)
    await archive_backup.extract_file(path, "backup/container.bin", tmp_path / "out", Budget())
    assert (tmp_path / "out").read_bytes() == b"stream"
    with pytest.raises(NotFound):
        await archive_backup.extract_file(path, "backup/snapshots/s0.bin", tmp_path / "other", Budget())
    linked = write(tmp_path, member("backup/container.bin", tarfile.SYMTYPE, link=str(canary)), END)
    with pytest.raises(BadRequest):
        await archive_backup.extract_file(linked, "backup/container.bin", tmp_path / "third", Budget())
