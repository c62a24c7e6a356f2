"""What system tests share: the helpers beside them, images that are built once, and a daemon in a box for each module."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from box import Daemon


@pytest.fixture(scope="session")
def debian_image() -> Path:
    """A Debian 12 as a packed unified image; read-only for tests."""
    return _debian("debian/12")


@pytest.fixture(scope="session")
def cloud_image() -> Path:
    """The same with cloud-init."""
    return _debian("debian/12/cloud")


def _debian(name: str) -> Path:
    import images  # found through the path above

    if not images.is_cached(name) and not images.reaches_mirrors():
        pytest.skip("no Debian image is cached and no mirror can be reached to build one")
    return asyncio.run(images.cached(name))


@pytest.fixture(scope="session")
def busybox_image() -> Path:
    """A busybox as a packed unified image; read-only for tests."""
    import images  # see above

    return asyncio.run(images.cached("busybox"))


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """A running daemon, set up by `init --auto`, with the image `tiny`; all of it is gone after the module's last test."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    import box  # see above

    folder = Path(tempfile.mkdtemp(prefix="atoll-system-"))
    folder.chmod(0o711)  # guests, with ids of their own, reach their files through it
    try:
        made = box.Daemon(folder)
        try:
            made.start()
            made.run("atolld", "init", "--auto")
            made.run("atoll", "image", "build", "busybox", "--alias", "tiny")
            yield made
        finally:
            made.close()
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def machines(daemon: Daemon) -> Iterator[Daemon]:
    """The daemon, without any instance before and after the test."""
    yield daemon
    for (name,) in daemon.listed("n"):
        daemon.run("atoll", "delete", "--force", name)


@pytest.fixture
def one(machines: Daemon) -> Daemon:
    """The daemon with a running instance of that name."""
    machines.run("atoll", "launch", "tiny", "one")
    return machines
