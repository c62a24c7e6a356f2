"""Instances of images that another server has."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mirror import Mirror

from atoll.host import facts

pytestmark = pytest.mark.skipif(shutil.which("mksquashfs") is None, reason="squashfs-tools are not installed")


@pytest.fixture
def parts(tmp_path: Path) -> tuple[bytes, bytes]:
    """(metadata, root file system) of an image for this host's architecture."""
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    subprocess.run(["mksquashfs", tree, tmp_path / "rootfs", "-quiet", "-no-progress", "-all-root"], check=True)
    (tmp_path / "metadata.yaml").write_text(f"architecture: {facts.architecture()}\ncreation_date: 1700000000\n")
    subprocess.run(["tar", "-C", tmp_path, "-cJf", tmp_path / "meta", "metadata.yaml"], check=True)
    return (tmp_path / "meta").read_bytes(), (tmp_path / "rootfs").read_bytes()


@pytest.fixture
async def mirror(tmp_path: Path, parts: tuple[bytes, bytes]) -> AsyncIterator[Mirror]:
    """With that image as tiny/1."""
    server = Mirror(tmp_path)
    await server.start()
    server.offer("tiny/1", *parts, arch=facts.architecture())
    try:
        yield server
    finally:
        await server.stop()


def body(mirror: Mirror, name: str, **source: Any) -> dict[str, Any]:
    about = {"type": "image", "mode": "pull", "server": mirror.address, "protocol": "simplestreams", "alias": "tiny/1"}
    return {"name": name, "source": {**about, "certificate": mirror.certificate, **source}}


async def test_the_image_is_fetched_once_and_cached(app: Any, mirror: Mirror) -> None:
    await app.do("POST", "/1.0/instances", body(mirror, "c1"))
    await app.do("POST", "/1.0/instances", body(mirror, "c2"))
    (image,) = await app.get("/1.0/images?recursion=1")
    assert (image["cached"], image["auto_update"]) == (True, True)
    assert mirror.asked("squashfs") == 1
    config = (await app.get("/1.0/instances/c2"))["config"]
    assert config["volatile.base_image"] == image["fingerprint"]
    assert config["image.os"] == "Tiny"


async def test_a_cached_image_serves_while_its_server_is_away(app: Any, mirror: Mirror) -> None:
    await app.do("POST", "/1.0/instances", body(mirror, "c1"))
    await mirror.stop()
    await app.do("POST", "/1.0/instances", body(mirror, "c2"))


async def test_what_is_wrong_is_told_before_the_download(app: Any, mirror: Mirror) -> None:
    await app.do("POST", "/1.0/instances", body(mirror, "c1"))
    mirror.requests.clear()
    for broken, status in (({"name": "c1"}, 409), ({"name": "-x"}, 400), ({"config": {"limits.cpu": "many"}}, 400)):
        assert (await app.refused("POST", "/1.0/instances", {**body(mirror, "c3"), **broken}))[0] == status
    assert mirror.requests == []


async def test_no_such_image_leaves_no_instance(app: Any, mirror: Mirror) -> None:
    status, text = await app.refused("POST", "/1.0/instances", body(mirror, "c1", alias="huge/1"))
    assert "huge/1" in text
    assert await app.get("/1.0/instances") == []
    assert await app.get("/1.0/images") == []
    assert status in (400, 404)
