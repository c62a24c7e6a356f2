"""Contract tests mount things: the test process takes a mount namespace of its own, so that nothing outlives it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from atoll.host import mount, process, syscalls

sys.path.insert(0, str(Path(__file__).parent))

MS_REC, MS_PRIVATE = 0x4000, 1 << 18


def pytest_configure() -> None:
    """Before any thread is started: threads keep the namespace that they start in."""
    if os.geteuid() == 0:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("none", "/", "none", MS_REC | MS_PRIVATE, "")


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in memory: images of file systems there do not wait for a disk at each flush, of which there are thousands."""
    folder = tmp_path_factory.mktemp("images")
    syscalls.mount("images", folder, "tmpfs", 0, "size=4g")
    yield folder
    mount.unmount_below(folder)


@pytest.fixture(scope="session")
def filesystems(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[dict[str, Path]]:
    """Folders on ext4, xfs and btrfs by name, as far as their programs are there; loop devices go with their mounts."""
    folders: dict[str, Path] = {}
    for kind in ("ext4", "xfs", "btrfs"):
        image, target = images / f"{kind}.image", tmp_path_factory.mktemp(f"{kind}-mount")
        with open(image, "wb") as file:
            file.truncate(400 << 20)
        made = subprocess.run([process.find(f"mkfs.{kind}"), "-q", str(image)], capture_output=True)
        if made.returncode == 0 and subprocess.run(["mount", "-o", "loop", image, target]).returncode == 0:
            folders[kind] = target
        image.unlink()  # the loop device keeps it until it is unmounted
    yield folders
    for target in folders.values():
        mount.unmount_below(target)


@pytest.fixture
def on(request: pytest.FixtureRequest, filesystems: dict[str, Path]) -> Path:
    """A folder on the file system that the test's parameter names."""
    if request.param not in filesystems:
        pytest.skip(f"no {request.param} here")
    return filesystems[request.param]
