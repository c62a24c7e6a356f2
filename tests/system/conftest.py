"""What system tests share: the helpers beside them, and images that are built once."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def debian_image() -> Path:
    """A Debian 12 as a packed unified image; read-only for tests."""
    import images  # found through the path above

    if not images.is_cached("debian/12") and not images.reaches_mirrors():
        pytest.skip("no Debian image is cached and no mirror can be reached to build one")
    return asyncio.run(images.cached("debian/12"))


@pytest.fixture(scope="session")
def busybox_image() -> Path:
    """A busybox as a packed unified image; read-only for tests."""
    import images  # see above

    return asyncio.run(images.cached("busybox"))
