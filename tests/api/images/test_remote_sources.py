"""Images of other servers: simplestreams, another server's API, a plain URL; servers that lie, break and go away."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from atoll.services.images import stream_cache

sys.path.insert(0, str(Path(__file__).parent))

from mirror import INDEX, PRODUCTS, Mirror

pytestmark = pytest.mark.skipif(shutil.which("mksquashfs") is None, reason="squashfs-tools are not installed")


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A root file system in a squashfs, of more than a megabyte."""
    folder = tmp_path_factory.mktemp("rootfs")
    (folder / "tree" / "etc").mkdir(parents=True)
    (folder / "tree" / "noise").write_bytes(b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(50_000)))
    subprocess.run(["mksquashfs", folder / "tree", folder / "out", "-quiet", "-no-progress", "-all-root"], check=True)
    return (folder / "out").read_bytes()


@pytest.fixture
def meta(make_tar: Any) -> bytes:
    data: bytes = make_tar({"metadata.yaml": "architecture: x86_64\ncreation_date: 1700000000\n"}, compression="xz")
    return data


@pytest.fixture
async def mirror(tmp_path: Path) -> AsyncIterator[Mirror]:
    server = Mirror(tmp_path)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fresh, and no pause between attempts."""
    monkeypatch.setattr(stream_cache, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr("atoll.services.images.sources._PAUSE_SECONDS", 0.0)


def body(mirror: Mirror, *, protocol: str = "simplestreams", **fields: Any) -> dict[str, Any]:
    source = {"type": "image", "mode": "pull", "server": mirror.address, "protocol": protocol, "certificate": mirror.certificate}
    extra = {key: fields.pop(key) for key in ("auto_update", "aliases", "public") if key in fields}
    return {"source": {**source, **fields}, **extra}


async def pull(world: Any, mirror: Mirror, **fields: Any) -> dict[str, Any]:
    ended: dict[str, Any] = await world.ended(await world.call("POST", "/1.0/images", body(mirror, **fields)))
    return ended


async def test_by_alias(world: Any, mirror: Mirror, meta: bytes, rootfs: bytes) -> None:
    mirror.offer("tiny/1", meta, rootfs, version="20250101_05:24")
    newest = mirror.offer("tiny/1", meta + b"\0" * 512, rootfs, version="20260101_05:24")
    mirror.offer("tiny/1", meta + b"\0" * 1024, rootfs, version="20270101_05:24", arch="arm64")
    ended = await pull(world, mirror, alias="tiny/1", auto_update=True, aliases=[{"name": "mine"}])
    assert ended["err"] == ""
    assert ended["metadata"]["fingerprint"] == newest
    image = await world.get(f"/1.0/images/{newest}")
    assert image["update_source"] == {
        "alias": "tiny/1", "certificate": mirror.certificate, "protocol": "simplestreams", "server": mirror.address,
        "image_type": "container",
    }  # fmt: skip
    assert image["properties"]["serial"] == "20260101_05:24"
    assert (image["auto_update"], image["cached"], image["aliases"][0]["name"]) == (True, False, "mine")
    assert world.files() == [newest, f"{newest}.rootfs"]


async def test_by_fingerprint_and_by_architecture_in_the_alias(world: Any, mirror: Mirror, meta: bytes, rootfs: bytes) -> None:
    old = mirror.offer("tiny/1", meta, rootfs, version="20250101_05:24")
    new = mirror.offer("tiny/1", meta + b"\0" * 512, rootfs)
    assert (await pull(world, mirror, fingerprint=old[:12]))["metadata"]["fingerprint"] == old
    assert (await pull(world, mirror, alias="tiny/1/amd64"))["metadata"]["fingerprint"] == new


async def test_a_download_that_breaks_goes_on_where_it_broke(world: Any, mirror: Mirror, meta: bytes, rootfs: bytes) -> None:
    fingerprint = mirror.offer("tiny/1", meta, rootfs)
    path = next(path for path in mirror.files if path.endswith("squashfs"))
    mirror.broken[path] = 700_000
    assert (await pull(world, mirror, alias="tiny/1"))["metadata"]["fingerprint"] == fingerprint
    assert mirror.asked("squashfs") == 2


@pytest.mark.parametrize("lie", ["hash", "combined", "size", "shorter"])
async def test_a_server_that_lies_leaves_nothing(world: Any, mirror: Mirror, meta: bytes, rootfs: bytes, lie: str) -> None:
    mirror.offer("tiny/1", meta, rootfs)
    items = mirror.products["tiny/1:amd64"]["versions"]["20260101_05:24"]["items"]
    match lie:
        case "hash":
            items["root.squashfs"]["sha256"] = "0" * 64
        case "combined":
            items["lxd.tar.xz"]["combined_squashfs_sha256"] = "0" * 64
        case "size":
            items["root.squashfs"]["size"] -= 1
        case _:
            items["root.squashfs"]["size"] += 1
    mirror.publish()
    ended = await pull(world, mirror, alias="tiny/1")
    assert ended["status"] == "Failure"
    assert world.files() == []
    assert await world.get("/1.0/images") == []


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "a/../../b", "https://x/y", "a\nb", "", None])
async def test_paths_that_lead_elsewhere_are_no_images(
    world: Any, mirror: Mirror, meta: bytes, rootfs: bytes, path: str | None
) -> None:
    mirror.offer("tiny/1", meta, rootfs)
    mirror.products["tiny/1:amd64"]["versions"]["20260101_05:24"]["items"]["root.squashfs"]["path"] = path
    mirror.publish()
    assert (await pull(world, mirror, alias="tiny/1"))["status_code"] == 400
    assert {path for _, path in mirror.requests} == {INDEX, PRODUCTS}


@pytest.mark.parametrize(
    "document", [b"", b"[]", b"{", b"null", b'{"index": 7}', b'{"index": {"a": {"datatype": "image-downloads"}}}']
)
async def test_documents_that_say_nothing(world: Any, mirror: Mirror, document: bytes) -> None:
    mirror.files[INDEX] = document
    assert (await pull(world, mirror, alias="tiny/1"))["status"] == "Failure"


async def test_what_did_not_change_is_not_sent_again(world: Any, mirror: Mirror, meta: bytes, rootfs: bytes) -> None:
    mirror.offer("tiny/1", meta, rootfs)
    await pull(world, mirror, alias="tiny/1")
    await mirror.stop()  # away: what it said last counts, and the image is here already
    ended = await pull(world, mirror, alias="tiny/1")
    assert ended["err"] == "Image with same fingerprint already exists"


async def test_many_at_the_same_time_download_once(world: Any, mirror: Mirror, meta: bytes, rootfs: bytes) -> None:
    mirror.offer("tiny/1", meta, rootfs)
    ended = await asyncio.gather(*(pull(world, mirror, alias="tiny/1") for _ in range(5)))
    assert sorted(each["status"] for each in ended) == ["Failure"] * 4 + ["Success"]
    assert mirror.asked("squashfs") == 1


async def test_refresh_takes_the_newer_version_with_the_aliases(world: Any, mirror: Mirror, meta: bytes, rootfs: bytes) -> None:
    old = mirror.offer("tiny/1", meta, rootfs, version="20250101_05:24")
    await pull(world, mirror, alias="tiny/1", aliases=[{"name": "mine"}], auto_update=True)
    same = await world.ended(await world.call("POST", f"/1.0/images/{old}/refresh"))
    assert same["metadata"] == {"refreshed": False}
    new = mirror.offer("tiny/1", meta + b"\0" * 512, rootfs)
    done = await world.ended(await world.call("POST", f"/1.0/images/{old}/refresh"))
    assert done["metadata"]["refreshed"] is True
    assert await world.get("/1.0/images") == [f"/1.0/images/{new}"]
    assert (await world.get("/1.0/images/aliases/mine"))["target"] == new


async def test_another_server(world: Any, mirror: Mirror, make_image: Any) -> None:
    data = make_image()
    fingerprint = hashlib.sha256(data).hexdigest()
    envelope = {"type": "sync", "metadata": {"fingerprint": fingerprint, "type": "container", "public": True, "properties": {}}}
    alias = {"type": "sync", "metadata": {"name": "tiny", "target": fingerprint}}
    mirror.files["/1.0/images/aliases/tiny"] = json.dumps(alias).encode()
    mirror.files[f"/1.0/images/{fingerprint}"] = json.dumps(envelope).encode()
    mirror.files[f"/1.0/images/{fingerprint}/export"] = data
    assert (await pull(world, mirror, protocol="lxd", alias="tiny"))["metadata"]["fingerprint"] == fingerprint
    mirror.files[f"/1.0/images/{fingerprint}/export"] = make_image(serial="2")
    await world.ended(await world.call("DELETE", f"/1.0/images/{fingerprint}"))
    assert "fingerprints differ" in (await pull(world, mirror, protocol="lxd", alias="tiny"))["err"]


async def test_a_private_image_by_its_secret(world: Any, mirror: Mirror, make_image: Any) -> None:
    data = make_image()
    fingerprint = hashlib.sha256(data).hexdigest()
    envelope = {"metadata": {"fingerprint": fingerprint, "type": "container", "public": False}}
    mirror.files[f"/1.0/images/{fingerprint}?secret=s3cret%26"] = json.dumps(envelope).encode()
    mirror.files[f"/1.0/images/{fingerprint}/export?secret=s3cret%26"] = data
    assert (await pull(world, mirror, protocol="lxd", fingerprint=fingerprint, secret="s3cret&"))["err"] == ""


async def test_a_plain_address(world: Any, mirror: Mirror, make_image: Any) -> None:
    data = make_image()
    fingerprint = hashlib.sha256(data).hexdigest()
    mirror.heads["/here"] = {"LXD-Image-URL": f"{mirror.address}/file", "LXD-Image-Hash": fingerprint}
    mirror.files["/file"] = data
    # Only a server that an authority vouches for can be used by its plain address.
    answer = await world.call("POST", "/1.0/images", {"source": {"type": "url", "url": f"{mirror.address}/here"}})
    assert "cannot be reached" in (await world.ended(answer))["err"]
    assert (await pull(world, mirror, protocol="direct", server=f"{mirror.address}/here"))["metadata"][
        "fingerprint"
    ] == fingerprint


@pytest.mark.parametrize(
    "fields",
    [
        {"server": "http://127.0.0.1"}, {"server": "file:///etc/passwd"}, {"protocol": "gopher"}, {"alias": ""},
        {"certificate": "none"}, {"image_type": "virtual-machine"}, {"mode": "push"}, {"fingerprint": "../x"},
    ],
)  # fmt: skip
async def test_sources_that_cannot_be(world: Any, mirror: Mirror, fields: dict[str, str]) -> None:
    answer = await world.call("POST", "/1.0/images", body(mirror, **{"alias": "tiny", **fields}))
    if answer.status == 202:
        assert (await world.ended(answer))["status"] == "Failure"
    else:
        assert answer.status in (400, 501)
    assert mirror.requests == []


async def test_another_certificate_is_not_believed(
    world: Any, mirror: Mirror, meta: bytes, rootfs: bytes, tmp_path: Path
) -> None:
    mirror.offer("tiny/1", meta, rootfs)
    (tmp_path / "other").mkdir()
    other = Mirror(tmp_path / "other").certificate
    assert "cannot be reached" in (await pull(world, mirror, alias="tiny/1", certificate=other))["err"]
    assert mirror.requests == []
