"""Building images for real."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import images
import pytest
from box import wait_until

from atoll.domain.errors import HostError
from atoll.host import archive
from atoll.host.imagebuild import build, debian, recipe

pytestmark = [pytest.mark.system, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def paths(top: Path) -> set[str]:
    """Everything below a folder, by relative path."""
    return {str(path.relative_to(top)) for path in top.rglob("*")}


def running_on(folder: Path) -> list[str]:
    """Command lines of programs that know of a folder."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it has ended
    return [line for line in lines if str(folder) in line]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "volume/rootfs").mkdir(parents=True)
    return tmp_path / "volume"


async def test_busybox(folder: Path, tmp_path: Path) -> None:
    told: list[int] = []
    built = await build.build(
        recipe.find("busybox"), folder, tmp_path / "image", progress=lambda percent, _: told.append(percent)
    )
    assert told[0] == 0 and told[-1] == 100 and told == sorted(told)
    assert set(os.listdir(folder)) == {"metadata.yaml", "rootfs", "templates"}
    assert os.readlink(folder / "rootfs/sbin/init") == "/bin/busybox"
    assert built.packed.size < 2 << 20
    ingested = await archive.ingest(tmp_path / "image")
    assert (ingested.fingerprint, ingested.metadata) == (built.packed.fingerprint, built.metadata)


async def test_busybox_unpacks_to_what_was_built(folder: Path, tmp_path: Path) -> None:
    await build.build(recipe.find("busybox"), folder, tmp_path / "image")
    other = tmp_path / "other"
    other.mkdir()
    await archive.unpack_image(tmp_path / "image", None, other)
    assert paths(folder) == paths(other)


async def test_a_failed_build_leaves_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "_NAMESPACES", (*debian._NAMESPACES, "false"))
    with pytest.raises(HostError):
        await build.build(recipe.find("debian/12"), folder, tmp_path / "image")
    assert paths(folder) == {"rootfs"}
    assert not (tmp_path / "image").exists()


@pytest.mark.skipif(not images.reaches_mirrors(), reason="needs a mirror of packages")
async def test_a_cancelled_build_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    """Cancelled while packages are unpacked, with mounts in place."""
    unpacking = asyncio.Event()
    task = asyncio.create_task(
        build.build(
            recipe.find("debian/12"), folder, tmp_path / "image",
            progress=lambda percent, _: unpacking.set() if percent >= 27 else None,
        )
    )  # fmt: skip
    waiting = asyncio.create_task(unpacking.wait())
    await asyncio.wait({task, waiting}, timeout=120, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert paths(folder) == {"rootfs"}
    assert not (tmp_path / "image").exists()
    wait_until(lambda: not running_on(tmp_path), "no program is at it any more")


async def test_debian_has_nothing_of_this_host(folder: Path, debian_image: Path) -> None:
    metadata = await archive.unpack_image(debian_image, None, folder)
    rootfs = folder / "rootfs"
    assert metadata.properties["os"] == "Debian"
    assert set(metadata.templates) == {"/etc/hostname", "/etc/hosts"}
    assert (rootfs / "etc/machine-id").read_text() == ""
    assert not (rootfs / "etc/hostname").exists()
    sources = (rootfs / "etc/apt/sources.list").read_text()
    assert sources.splitlines()[0] == "deb http://deb.debian.org/debian bookworm main"
    assert not list((rootfs / "etc/apt/sources.list.d").iterdir())
    assert not list((rootfs / "var/lib/apt/lists").glob("*Packages*"))
    assert "99mmdebstrap" not in {path.name for path in (rootfs / "etc").rglob("*")}
    assert stat.S_IMODE((rootfs / "usr/bin/su").stat().st_mode) == 0o4755
    assert os.readlink(rootfs / "sbin/init").endswith("systemd")
