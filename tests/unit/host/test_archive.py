"""Image archives: what good ones keep through packing and unpacking, and that crafted ones do no harm and leave nothing."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import hashlib
import io
import lzma
import os
import shutil
import stat
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from tar_blocks import END, member

from atoll.domain import compression, image_metadata
from atoll.domain.errors import AtollError, BadRequest, Cancelled, DeadlineExceeded, TooLarge, Unsupported
from atoll.domain.image_metadata import ImageMetadata
from atoll.host import archive, archive_tar
from atoll.host.archive import Budget, Kind

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="unpacking keeps owners, which takes root")

METADATA = ImageMetadata("x86_64", 1_700_000_000, properties={"os": "Test"})
TEXT = image_metadata.dump(METADATA)
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
"""security.capability of a file with cap_net_bind_service=ep."""


META = member("metadata.yaml", data=TEXT)
ROOTFS = member("rootfs", tarfile.DIRTYPE)


def write(tmp_path: Path, *parts: bytes, name: str = "image.tar") -> Path:
    path = tmp_path / name
    path.write_bytes(b"".join(parts))
    return path


def call(*argv: str | Path) -> None:
    """A program of the host, to make what is tested."""
    subprocess.run(argv, check=True, capture_output=True)


def squash(source: Path, image: Path) -> None:
    call("mksquashfs", source, image, "-quiet", "-no-progress")


def tree(top: Path) -> set[str]:
    return {str(path.relative_to(top)) for path in top.rglob("*")}


async def refused(path: Path, target: Path, kind: type[AtollError], says: str = ".", budget: Budget | None = None) -> None:
    """The image is refused, and the target is as empty as it was."""
    with pytest.raises(kind, match=says):
        await archive.unpack_image(path, None, target, budget=budget)
    assert tree(target) == {"rootfs"}


COMPRESSORS: dict[Kind, Callable[[bytes], bytes]] = {
    Kind.TAR: bytes,
    Kind.TAR_GZ: gzip.compress,
    Kind.TAR_BZ2: bz2.compress,
    Kind.TAR_XZ: lzma.compress,
    Kind.TAR_LZMA: lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    Kind.TAR_ZST: zstandard.compress,
}


# What good images keep


@pytest.mark.parametrize("kind", COMPRESSORS)
async def test_every_compression_is_read(kind: Kind, tmp_path: Path, target: Path) -> None:
    path = write(tmp_path, COMPRESSORS[kind](META + ROOTFS + member("rootfs/a", data=b"hello") + END))
    assert await archive.identify(path) is kind
    assert await archive.read_member(path, "metadata.yaml") == TEXT
    assert await archive.unpack_image(path, None, target) == METADATA
    assert (target / "rootfs/a").read_bytes() == b"hello"


@pytest.mark.parametrize("algorithm", compression.Algorithm)
async def test_a_tree_survives_packing(algorithm: compression.Algorithm, tmp_path: Path, target: Path) -> None:
    source = tmp_path / "source"
    make_tree(source / "rootfs")
    (source / "templates").mkdir()
    (source / "templates/x.tpl").write_text("{{ path }}")
    packed = await archive.pack_image(source, tmp_path / "out", METADATA, compression=compression.Compression(algorithm))
    data = (tmp_path / "out").read_bytes()
    assert packed == archive.Packed(hashlib.sha256(data).hexdigest(), len(data))
    assert (await archive.ingest(tmp_path / "out")).fingerprint == packed.fingerprint
    assert await archive.unpack_image(tmp_path / "out", None, target) == METADATA
    check_tree(target / "rootfs")
    if algorithm is not compression.Algorithm.SQUASHFS:  # whose tools cannot leave single attributes out
        assert "user.overlay.opaque" not in os.listxattr(target / "rootfs/etc/file")
    assert (target / "templates/x.tpl").read_text() == "{{ path }}"
    assert set(os.listdir(tmp_path)) == {"source", "out", "target"}


def make_tree(rootfs: Path) -> None:
    """One of everything that an image must keep."""
    (rootfs / "etc").mkdir(parents=True)
    (rootfs / "etc/file").write_text("x")
    os.chown(rootfs / "etc/file", 100, 65534)
    os.setxattr(rootfs / "etc/file", "user.note", b"kept")
    os.setxattr(rootfs / "etc/file", "user.overlay.opaque", b"y")
    os.link(rootfs / "etc/file", rootfs / "etc/hard")
    os.symlink("/nowhere/../x", rootfs / "etc/soft")
    os.mkfifo(rootfs / "etc/fifo")
    (rootfs / "etc/ping").write_text("program")
    os.setxattr(rootfs / "etc/ping", "security.capability", CAPABILITY)
    (rootfs / "etc/su").write_text("program")
    (rootfs / "etc/su").chmod(0o4755)
    (rootfs / ("n" * 200 + "ä")).write_text("long")
    with (rootfs / "sparse").open("wb") as file:
        file.truncate(64 << 20)
    (rootfs / "etc").chmod(0o2751)


def check_tree(rootfs: Path) -> None:
    """That `make_tree`'s things are there again."""
    file = rootfs / "etc/file"
    assert (file.stat().st_uid, file.stat().st_gid, file.stat().st_nlink) == (100, 65534, 2)
    assert os.getxattr(file, "user.note") == b"kept"
    assert (rootfs / "etc/hard").samefile(file)
    assert os.readlink(rootfs / "etc/soft") == "/nowhere/../x"
    assert stat.S_ISFIFO((rootfs / "etc/fifo").stat().st_mode)
    assert os.getxattr(rootfs / "etc/ping", "security.capability") == CAPABILITY
    assert stat.S_IMODE((rootfs / "etc/su").stat().st_mode) == 0o4755
    assert stat.S_IMODE((rootfs / "etc").stat().st_mode) == 0o2751
    assert (rootfs / ("n" * 200 + "ä")).read_text() == "long"
    assert (rootfs / "sparse").stat().st_size == 64 << 20
    assert (rootfs / "sparse").stat().st_blocks < 1000


@pytest.mark.skipif(shutil.which("setfacl") is None, reason="no setfacl")
async def test_acls_survive_packing(tmp_path: Path, target: Path) -> None:
    (tmp_path / "source/rootfs").mkdir(parents=True)
    call("setfacl", "-m", "u:1234:rwx", tmp_path / "source/rootfs")
    before = os.getxattr(tmp_path / "source/rootfs", "system.posix_acl_access")
    await archive.pack_image(tmp_path / "source", tmp_path / "out", METADATA, compression=compression.NONE)
    await archive.unpack_image(tmp_path / "out", None, target)
    assert os.getxattr(target / "rootfs", "system.posix_acl_access") == before


async def test_the_same_tree_gives_the_same_file(tmp_path: Path) -> None:
    make_tree(tmp_path / "source/rootfs")
    prints = [
        (await archive.pack_image(tmp_path / "source", tmp_path / name, METADATA, compression=compression.ZSTD)).fingerprint
        for name in ("a", "b")
    ]
    assert prints[0] == prints[1]


async def test_split_image(tmp_path: Path, target: Path) -> None:
    meta = write(tmp_path, META, member("templates", tarfile.DIRTYPE), member("templates/h.tpl", data=b"t"), END)
    rootfs = write(tmp_path, gzip.compress(member("./", tarfile.DIRTYPE) + member("./etc/a", data=b"1") + END), name="rootfs")
    told: list[int] = []
    ingested = await archive.ingest(meta, rootfs)
    assert ingested.fingerprint == hashlib.sha256(meta.read_bytes() + rootfs.read_bytes()).hexdigest()
    assert (ingested.kind, ingested.metadata) == (Kind.TAR_GZ, METADATA)
    await archive.unpack_image(meta, rootfs, target, progress=told.append)
    assert tree(target) == {"metadata.yaml", "templates", "templates/h.tpl", "rootfs", "rootfs/etc", "rootfs/etc/a"}


async def test_split_image_with_squashfs(tmp_path: Path, target: Path) -> None:
    source = tmp_path / "squashfs"
    make_tree(source)
    os.mknod(source / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    squash(source, tmp_path / "rootfs")
    meta = write(tmp_path, META, END)
    assert (await archive.ingest(meta, tmp_path / "rootfs")).kind is Kind.SQUASHFS
    await archive.unpack_image(meta, tmp_path / "rootfs", target)
    assert (target / "rootfs/etc/hard").samefile(target / "rootfs/etc/file")
    assert os.getxattr(target / "rootfs/etc/ping", "security.capability") == CAPABILITY
    assert not (target / "rootfs/null").exists()


async def test_devices_and_foreign_files_are_left_out(tmp_path: Path, target: Path) -> None:
    path = write(
        tmp_path,
        META + ROOTFS + member("README", data=b"x") + member("rootfs/dev", tarfile.DIRTYPE) + member("rootfs/dev/x", data=b"x"),
        member("rootfs/null", tarfile.CHRTYPE) + member("rootfs/sda", tarfile.BLKTYPE) + END,
    )
    await archive.unpack_image(path, None, target)
    assert tree(target) == {"metadata.yaml", "rootfs", "rootfs/dev"}


async def test_metadata_is_roots_afterwards(tmp_path: Path, target: Path) -> None:
    info = tarfile.TarInfo("metadata.yaml")
    info.size, info.uid, info.mode = len(TEXT), 1000, 0o6777
    await archive.unpack_image(write(tmp_path, info.tobuf(), TEXT, bytes(-len(TEXT) % 512), ROOTFS, END), None, target)
    status = (target / "metadata.yaml").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o644)


async def test_overlay_attributes_are_left_out(tmp_path: Path, target: Path) -> None:
    names = ("trusted.overlay.redirect", "user.overlay.redirect", "security.selinux", "user.ok")
    folder = member("rootfs/a", tarfile.DIRTYPE, pax={f"SCHILY.xattr.{name}": "/etc" for name in names})
    await archive.unpack_image(write(tmp_path, META, ROOTFS, folder, END), None, target)
    assert os.listxattr(target / "rootfs/a") == ["user.ok"]


# Crafted names and links


@pytest.mark.parametrize(
    "name", ["../canary", "rootfs/../../canary", "/../canary", "rootfs/a/../../../canary", "a" * 5000, "d/" * 200]
)
async def test_names_that_lead_out(name: str, tmp_path: Path, target: Path, canary: Path) -> None:
    await refused(write(tmp_path, META, ROOTFS, member(name, data=b"evil"), END), target, BadRequest, "name")


async def test_a_leading_slash_is_the_archives_top(tmp_path: Path, target: Path, canary: Path) -> None:
    await archive.unpack_image(write(tmp_path, META, ROOTFS, member(f"/rootfs{canary}", data=b"inside"), END), None, target)
    assert (target / f"rootfs{canary}").read_bytes() == b"inside"


async def test_names_that_lead_out_in_a_pax_header(tmp_path: Path, target: Path, canary: Path) -> None:
    for key in ("path", "GNU.sparse.name"):
        await refused(write(tmp_path, META, ROOTFS, member("rootfs/a", pax={key: "../canary"}), END), target, BadRequest, "name")


@pytest.mark.parametrize("to", ["absolute", "../../canary", "../canary"])
async def test_writing_through_a_link(to: str, tmp_path: Path, target: Path, canary: Path) -> None:
    to = str(canary) if to == "absolute" else to
    path = write(tmp_path, META, ROOTFS, member("rootfs/l", tarfile.SYMTYPE, link=to), member("rootfs/l", data=b"evil"), END)
    await archive.unpack_image(path, None, target)
    assert tree(target) == {"metadata.yaml", "rootfs", "rootfs/l"}


@pytest.mark.parametrize("to", ["absolute", "../.."])
async def test_writing_below_a_linked_folder(to: str, tmp_path: Path, target: Path, canary: Path) -> None:
    to = str(canary.parent) if to == "absolute" else to
    link = member("rootfs/l", tarfile.SYMTYPE, link=to)
    await refused(write(tmp_path, META, ROOTFS, link, member("rootfs/l/canary", data=b"evil"), END), target, BadRequest)


@pytest.mark.parametrize("link", ["../canary", "/etc/passwd", "metadata.yaml", "templates/x", "rootfs/../metadata.yaml"])
async def test_hard_links_that_lead_out(link: str, tmp_path: Path, target: Path, canary: Path) -> None:
    await refused(write(tmp_path, META, ROOTFS, member("rootfs/l", tarfile.LNKTYPE, link=link), END), target, BadRequest)


async def test_a_hard_link_through_a_linked_folder(tmp_path: Path, target: Path) -> None:
    """The one way to name metadata.yaml from within rootfs: by a link to the folder above."""
    path = write(
        tmp_path, META, ROOTFS, member("rootfs/up", tarfile.SYMTYPE, link=".."),
        member("rootfs/mine", tarfile.LNKTYPE, link="rootfs/up/metadata.yaml"), END,
    )  # fmt: skip
    await refused(path, target, BadRequest)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
@pytest.mark.parametrize("name", ["metadata.yaml", "templates", "templates/x.tpl", "rootfs"])
async def test_what_must_be_plain(kind: bytes, name: str, tmp_path: Path, target: Path, canary: Path) -> None:
    if (kind, name) in [(tarfile.DIRTYPE, "templates"), (tarfile.DIRTYPE, "rootfs")]:
        return
    parts = [part for part in (META, ROOTFS) if name not in ("metadata.yaml" if part is META else "rootfs")]
    crafted = member(name, kind, link="" if kind == tarfile.DIRTYPE else str(canary))
    await refused(write(tmp_path, *parts, crafted, END), target, BadRequest)


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE])
async def test_a_device_as_metadata(kind: bytes, tmp_path: Path, target: Path) -> None:
    await refused(write(tmp_path, ROOTFS, member("metadata.yaml", kind), END), target, BadRequest, "no metadata.yaml")


@pytest.mark.parametrize("twice", [META, member("templates/a", data=b"1")])
async def test_doubles(twice: bytes, tmp_path: Path, target: Path) -> None:
    head = b"" if twice == META else META
    await refused(write(tmp_path, head, ROOTFS, twice, twice, END), target, BadRequest, "twice")


async def test_a_double_in_rootfs_is_harmless(tmp_path: Path, target: Path) -> None:
    path = write(tmp_path, META, ROOTFS, member("rootfs/a", data=b"1"), member("rootfs/a", data=b"2"), END)
    await archive.unpack_image(path, None, target)
    assert (target / "rootfs/a").read_bytes() == b"2"


@pytest.mark.parametrize("part", ["metadata.yaml", "rootfs", "templates"])
async def test_links_in_a_squashfs(part: str, tmp_path: Path, target: Path, canary: Path) -> None:
    source = tmp_path / "source"
    (source / "rootfs").mkdir(parents=True)
    (source / "metadata.yaml").write_bytes(TEXT)
    if part == "rootfs":
        (source / part).rmdir()
    else:
        (source / part).unlink(missing_ok=True)
    (source / part).symlink_to(canary.parent if part != "metadata.yaml" else canary)
    squash(source, tmp_path / "image")
    await refused(tmp_path / "image", target, BadRequest)


# Broken archives


@pytest.mark.parametrize("kind", COMPRESSORS)
@pytest.mark.parametrize("keep", [0.3, 0.9])
async def test_truncated(kind: Kind, keep: float, tmp_path: Path, target: Path) -> None:
    whole = COMPRESSORS[kind](META + ROOTFS + member("rootfs/a", data=os.urandom(200_000)) + END)
    await refused(write(tmp_path, whole[: int(len(whole) * keep)]), target, BadRequest)


@pytest.mark.parametrize(
    "parts",
    [
        (META, ROOTFS),
        (META, ROOTFS, member("rootfs/a", data=b"x" * 512)[:-600], END),
        (META, ROOTFS, b"\1" * 512, END),
        (ROOTFS, END),
        (META, member("rootfs", data=b"a file"), END),
        (META, END),
        (END,),
        (member("metadata.yaml", data=b"architecture:\n"), ROOTFS, END),
        (META, ROOTFS, member("rootfs/a", b"Z"), END),
        (META, ROOTFS, tarfile.TarInfo._create_pax_generic_header({"a": "b"}, tarfile.XHDTYPE, "utf-8"), END),  # type: ignore[attr-defined]
    ],
    ids=[
        "no end",
        "cut member",
        "noise",
        "no metadata",
        "rootfs a file",
        "no rootfs",
        "nothing",
        "bad metadata",
        "unknown kind",
        "pax without member",
    ],
)
async def test_malformed(parts: tuple[bytes, ...], tmp_path: Path, target: Path) -> None:
    await refused(write(tmp_path, *parts), target, BadRequest)


async def test_damaged_content(tmp_path: Path, target: Path) -> None:
    whole = bytearray(gzip.compress(META + ROOTFS + member("rootfs/a", data=os.urandom(100_000)) + END))
    whole[-5] ^= 0xFF
    await refused(write(tmp_path, bytes(whole)), target, BadRequest, "decompressed")


@pytest.mark.parametrize("data", [b"", b"PK\3\4" + bytes(600), b"x" * 100, os.urandom(2000).replace(b"\x1f", b"a")])
async def test_other_files_are_no_images(data: bytes, tmp_path: Path, target: Path) -> None:
    await refused(write(tmp_path, data), target, BadRequest, "Unsupported compression")


async def test_virtual_machines_are_named_as_such(tmp_path: Path, target: Path) -> None:
    await refused(write(tmp_path, META, member("rootfs.img", data=b"x"), END), target, Unsupported, "virtual machine")
    with pytest.raises(Unsupported):
        await archive.ingest(write(tmp_path, META, END), write(tmp_path, b"QFI\xfb" + bytes(600), name="disk"))


# Bombs


@pytest.mark.parametrize("kind", [Kind.TAR_GZ, Kind.TAR_XZ, Kind.TAR_ZST, Kind.TAR_BZ2])
async def test_compression_bombs(kind: Kind, tmp_path: Path, target: Path) -> None:
    bomb = COMPRESSORS[kind](META + ROOTFS + member("rootfs/a", data=bytes(64 << 20)) + END)
    assert len(bomb) < 1 << 20
    await refused(write(tmp_path, bomb), target, TooLarge, budget=Budget(bytes=8 << 20))


async def test_a_bomb_after_the_end(tmp_path: Path, target: Path) -> None:
    await refused(
        write(tmp_path, gzip.compress(META + ROOTFS + END + bytes(64 << 20))), target, TooLarge, budget=Budget(bytes=8 << 20)
    )


async def test_a_bomb_before_metadata(tmp_path: Path) -> None:
    path = write(tmp_path, gzip.compress(ROOTFS + member("rootfs/a", data=bytes(64 << 20)) + META + END))
    with pytest.raises(TooLarge):
        await archive.ingest(path, budget=Budget(bytes=8 << 20))


async def test_too_many_files(tmp_path: Path, target: Path) -> None:
    many = b"".join(member(f"rootfs/{number}") for number in range(3000))
    await refused(write(tmp_path, META, ROOTFS, many, END), target, TooLarge, "2000 files", budget=Budget(entries=2000))


async def test_a_million_files_are_refused_soon(tmp_path: Path, target: Path) -> None:
    one = member("rootfs/a")
    frames = zstandard.compress(META + ROOTFS), zstandard.compress(one * 10_000) * 100, zstandard.compress(END)
    path = write(tmp_path, b"".join(frames))
    async with asyncio.timeout(60):
        await refused(path, target, TooLarge, budget=Budget(entries=50_000))


async def test_a_pax_header_of_4_gib(tmp_path: Path, target: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 4 << 30
    await refused(write(tmp_path, META, ROOTFS, info.tobuf(), END), target, BadRequest, "extension header")


async def test_a_sparse_file_beyond_the_limit(tmp_path: Path, target: Path) -> None:
    folder = tmp_path / "big"
    (folder / "rootfs").mkdir(parents=True)
    (folder / "metadata.yaml").write_bytes(TEXT)
    with (folder / "rootfs/sparse").open("wb") as file:
        file.truncate(1 << 30)
    call("tar", "-C", folder, "-S", "-cf", tmp_path / "image", "metadata.yaml", "rootfs")
    assert (tmp_path / "image").stat().st_size < 1 << 20
    await refused(tmp_path / "image", target, TooLarge, budget=Budget(file_bytes=1 << 20))


async def test_a_squashfs_bomb(tmp_path: Path, target: Path) -> None:
    source = tmp_path / "source"
    (source / "rootfs").mkdir(parents=True)
    (source / "metadata.yaml").write_bytes(TEXT)
    (source / "rootfs/zeros").write_bytes(bytes(64 << 20))
    squash(source, tmp_path / "image")
    await refused(tmp_path / "image", target, TooLarge, budget=Budget(bytes=8 << 20))
    await refused(tmp_path / "image", target, TooLarge, budget=Budget(entries=2))


async def test_metadata_of_a_gigabyte(tmp_path: Path) -> None:
    path = write(tmp_path, gzip.compress(member("metadata.yaml", data=bytes(8 << 20)) + END))
    with pytest.raises(TooLarge):
        await archive.ingest(path)


@pytest.fixture
def before_each_write(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Has something done before each piece of an archive goes to the program that unpacks it, in the thread that writes."""
    real = archive_tar.filter_stream

    def install(do: Callable[[], object]) -> None:
        def filter_stream(source: Any, rules: Any, budget: Any, write: Any, **more: Any) -> None:
            real(source, rules, budget, lambda data: (do(), write(data))[1], **more)

        monkeypatch.setattr(archive_tar, "filter_stream", filter_stream)

    return install


async def test_time_runs_out(tmp_path: Path, target: Path, before_each_write: Any) -> None:
    before_each_write(lambda: time.sleep(0.1))
    path = write(tmp_path, gzip.compress(META + ROOTFS + member("rootfs/a", data=bytes(1 << 20)) + END))
    await refused(path, target, DeadlineExceeded, budget=Budget(seconds=0.05))


async def test_cancelling_leaves_nothing(tmp_path: Path, target: Path, before_each_write: Any) -> None:
    begun, go_on, loop = asyncio.Event(), threading.Event(), asyncio.get_running_loop()
    before_each_write(lambda: (loop.call_soon_threadsafe(begun.set), go_on.wait(30)))
    big = META + ROOTFS + member("rootfs/a", data=os.urandom(1 << 20)) + END
    task = asyncio.create_task(archive.unpack_image(write(tmp_path, big), None, target))
    await begun.wait()
    task.cancel()
    go_on.set()
    with pytest.raises((asyncio.CancelledError, Cancelled)):
        await task
    assert tree(target) == {"rootfs"}


async def test_no_program_and_no_descriptor_is_left(tmp_path: Path, target: Path) -> None:
    """After good, refused and cancelled archives alike."""
    good = write(tmp_path, gzip.compress(META + ROOTFS + END))
    bad = write(
        tmp_path, gzip.compress(META + ROOTFS + member("../x") + member("rootfs/a", data=bytes(8 << 20)) + END), name="bad"
    )
    await archive.unpack_image(good, None, target)
    await archive.empty(target)
    before = set(os.listdir("/proc/self/fd"))
    for path in (good, bad, good, bad):
        try:
            await archive.unpack_image(path, None, target)
        except BadRequest:
            pass
        await archive.empty(target)
    assert set(os.listdir("/proc/self/fd")) <= before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # noqa: ASYNC222 - it does not wait


def test_tarfile_is_not_how_we_unpack() -> None:
    """The standard library's extraction has followed links out of its target more than once."""
    for path in Path(archive.__file__).parent.glob("archive*.py"):
        text = path.read_text()
        assert "extractall" not in text and "unpack_archive" not in text


def test_members_helper_agrees_with_tarfile() -> None:
    with tarfile.open(fileobj=io.BytesIO(META + ROOTFS + END)) as opened:
        assert opened.getnames() == ["metadata.yaml", "rootfs"]
