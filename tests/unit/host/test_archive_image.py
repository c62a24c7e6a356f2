"""Disks out of archives: with all zeros, with a map of what is none, and from somebody who means harm."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from atoll.domain.errors import BadRequest, NotFound, TooLarge, Unsupported
from atoll.host import archive_image, disk_image
from atoll.host.archive_tar import Budget

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="archives are read in a jail, which takes root")

MIB = 1 << 20
NAME = "backup/volume.img"
PLAIN, SPARSE = ("--format=posix",), ("--format=posix", "--sparse")


def packed(tmp_path: Path, size: int, *options: str, **parts: bytes) -> Path:
    """An archive with a disk, as GNU tar makes it."""
    source = tmp_path / "source" / NAME
    source.parent.mkdir(parents=True, exist_ok=True)
    with source.open("wb") as file:
        file.truncate(size)
        for name, data in parts.items():
            file.seek(int(name[2:]))
            file.write(data)
    made = tmp_path / "archive"
    subprocess.run(["tar", *options, "--create", f"--file={made}", f"--directory={tmp_path}/source", NAME], check=True)
    return made


def folder(tmp_path: Path) -> Path:
    made = tmp_path / "target"
    made.mkdir(exist_ok=True)
    return made


async def extract(path: Path, target: Path, budget: Budget | None = None) -> None:
    await archive_image.extract(path, NAME, target, budget or Budget())


@pytest.mark.parametrize("options", [PLAIN, SPARSE, (*PLAIN, "--gzip"), (*SPARSE, "--zstd")])
async def test_it_is_what_it_was_and_takes_no_more(tmp_path: Path, options: tuple[str, ...]) -> None:
    parts = {"at4096": b"a" * 100_000, "at4194304": b"b" * 5}
    archive, target = packed(tmp_path, 6 * MIB, *options, **parts), folder(tmp_path)
    for _ in range(2):  # the second time over what is there
        await extract(archive, target)
        assert (target / disk_image.FILE).read_bytes() == (tmp_path / "source" / NAME).read_bytes()
        assert disk_image.measure(target).used < MIB


@pytest.mark.parametrize("options", [PLAIN, SPARSE])
async def test_a_later_state_goes_over_an_earlier_one(tmp_path: Path, options: tuple[str, ...]) -> None:
    target = folder(tmp_path)
    for size, parts in ((8, {"at0": b"a" * MIB, "at7000000": b"b"}), (4, {"at2097152": b"c" * MIB}), (16, {})):
        await extract(packed(tmp_path, size * MIB, *options, **parts), target)
        assert (target / disk_image.FILE).read_bytes() == (tmp_path / "source" / NAME).read_bytes()
    assert disk_image.measure(target).used == 0


async def test_the_budget_is_for_what_takes_space(tmp_path: Path) -> None:
    budget = Budget(bytes=MIB)
    await extract(packed(tmp_path, 6 * MIB, *PLAIN, at0=b"x" * 1000), folder(tmp_path), budget)
    with pytest.raises(TooLarge):
        await extract(packed(tmp_path, 6 * MIB, *SPARSE, at0=b"x" * 2 * MIB), folder(tmp_path), budget)


def crafted(tmp_path: Path, content: bytes, headers: dict[str, str], *, kind: bytes = tarfile.REGTYPE) -> Path:
    made = tmp_path / "archive"
    info = tarfile.TarInfo(NAME)
    info.size, info.type, info.linkname = len(content), kind, "/etc/passwd" if kind == tarfile.SYMTYPE else ""
    info.pax_headers = headers
    with tarfile.open(made, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(content))
    return made


V1 = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": NAME, "GNU.sparse.realsize": "4096"}
MAPS = [
    b"", b"1\n", b"x\n", b"-1\n", b"1\n0\n5000\n", b"2\n10\n10\n5\n5\n", b"1\n5000\n0\n", b"1\n0\n1\n", b"9" * 4000,
    b"129\n" + b"0\n0\n" * 127 + b"0\n512\n4096\n0\n",
]  # fmt: skip


@pytest.mark.parametrize("text", MAPS)
async def test_maps_that_lie(tmp_path: Path, text: bytes) -> None:
    content = text.ljust(-(-len(text) // 512) * 512, b"\0") + bytes(512)
    with pytest.raises(BadRequest):
        await extract(crafted(tmp_path, content, V1), folder(tmp_path))


async def test_what_is_no_disk(tmp_path: Path) -> None:
    for kind in (tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
        with pytest.raises(BadRequest):
            await extract(crafted(tmp_path, b"", {}, kind=kind), folder(tmp_path))
    with pytest.raises(Unsupported):
        await extract(crafted(tmp_path, b"", {"GNU.sparse.map": "0,0", "GNU.sparse.size": "5"}), folder(tmp_path))
    with pytest.raises(NotFound):
        await archive_image.extract(packed(tmp_path, MIB), "backup/other.img", folder(tmp_path), Budget())
    assert list(folder(tmp_path).iterdir()) == []


async def test_a_link_in_the_place_of_the_disk_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (folder(tmp_path) / disk_image.FILE).symlink_to(tmp_path / "secret")
    with pytest.raises(BadRequest):
        await extract(packed(tmp_path, MIB, *PLAIN, at0=b"x"), folder(tmp_path))
    assert (tmp_path / "secret").read_text() == "secret"
