"""Images of other servers: simplestreams, another server's API, a plain URL; servers that lie, break and go away."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from mirror import INDEX, PRODUCTS, Mirror, body, pull

from atoll.domain.caller import DAEMON
from atoll.services import budgets
from atoll.services.images import stream_cache
from atoll.services.images.sources import Source
from atoll.services.operations import OperationSpec

pytestmark = pytest.mark.usefixtures("quick")


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
    assert "note" not in image["properties"], "what the server says, not what metadata.yaml does"
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


@pytest.mark.parametrize("lie", ["hash", "combined", "larger", "shorter"])
async def test_a_server_that_lies_leaves_nothing(world: Any, mirror: Mirror, meta: bytes, rootfs: bytes, lie: str) -> None:
    mirror.offer("tiny/1", meta, rootfs)
    mirror.lie(lie)
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
    again = await pull(world, mirror, alias="tiny/1", public=True, aliases=[{"name": "mine"}])
    assert again["err"] == ""
    image = await world.get(f"/1.0/images/{again['metadata']['fingerprint']}")
    assert (image["public"], image["aliases"][0]["name"]) == (True, "mine")


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


async def test_refresh_asks_however_fresh_the_last_word_is(
    world: Any, mirror: Mirror, meta: bytes, rootfs: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_cache, "FRESH_SECONDS", 3600.0)
    old = mirror.offer("tiny/1", meta, rootfs, version="20250101_05:24")
    await pull(world, mirror, alias="tiny/1")
    mirror.offer("tiny/1", meta + b"\0" * 512, rootfs)
    assert (await pull(world, mirror, alias="tiny/1"))["metadata"]["fingerprint"] == old
    done = await world.ended(await world.call("POST", f"/1.0/images/{old}/refresh"))
    assert done["metadata"]["refreshed"] is True


async def test_an_image_of_another_servers_project(world: Any, mirror: Mirror, make_image: Any) -> None:
    """The same name in another project is another image: neither taken for it, nor for a newer version of it."""
    await world.local_settings()
    fingerprints = {}
    for project in ("", "one", "two"):
        data = make_image(serial=project or "0")
        fingerprint = fingerprints[project] = hashlib.sha256(data).hexdigest()
        query = f"?project={project}" if project else ""
        mirror.files[f"/1.0/images/aliases/tiny{query}"] = json.dumps({"metadata": {"target": fingerprint}}).encode()
        mirror.files[f"/1.0/images/{fingerprint}{query}"] = json.dumps({"metadata": {"fingerprint": fingerprint}}).encode()
        mirror.files[f"/1.0/images/{fingerprint}/export{query}"] = data
    operation = world.operations.start(OperationSpec("test"))
    for project in ("one", "two", ""):
        source = Source(mirror.address, "lxd", alias="tiny", certificate=mirror.certificate, project=project)
        image = await world.puller.for_instance("default", source, operation, caller=DAEMON)
        assert image.fingerprint == fingerprints[project]
        assert await world.puller.refresh("default", image, operation, caller=DAEMON) is False


async def test_a_secret_is_used_once_even_if_the_download_breaks(world: Any, mirror: Mirror, make_image: Any) -> None:
    data = make_image()
    fingerprint = hashlib.sha256(data).hexdigest()
    mirror.files[f"/1.0/images/{fingerprint}?secret=s"] = json.dumps({"metadata": {"fingerprint": fingerprint}}).encode()
    mirror.files[f"/1.0/images/{fingerprint}/export?secret=s"] = data
    mirror.broken[f"/1.0/images/{fingerprint}/export?secret=s"] = 100
    assert "cannot be reached" in (await pull(world, mirror, protocol="lxd", fingerprint=fingerprint, secret="s"))["err"]
    assert mirror.asked("export") == 1


async def test_an_image_that_is_here_gets_what_is_wished(world: Any, mirror: Mirror, meta: bytes, rootfs: bytes) -> None:
    fingerprint = mirror.offer("tiny/1", meta, rootfs)
    await pull(world, mirror, alias="tiny/1")
    assert (await pull(world, mirror, alias="tiny/1", profiles=[]))["err"] == ""
    assert (await world.get(f"/1.0/images/{fingerprint}"))["profiles"] == []
    assert "doesn't exist" in (await pull(world, mirror, alias="tiny/1", profiles=["absent"]))["err"]


@pytest.mark.parametrize("announced", ["tiny/1", "form"])
async def test_no_image_takes_the_room_that_the_server_needs(
    world: Any, mirror: Mirror, meta: bytes, rootfs: bytes, monkeypatch: pytest.MonkeyPatch, announced: str
) -> None:
    async def small(_: Path) -> int:
        return 1000

    monkeypatch.setattr(budgets, "of_folder", small)
    if announced == "form":
        assert (await world.client.post("/1.0/images", data=rootfs)).status == 413
    else:
        mirror.offer(announced, meta, rootfs)
        assert "larger than 1000 bytes" in (await pull(world, mirror, alias=announced))["err"]
        assert mirror.asked("squashfs") == 0
    assert world.files() == []


async def test_another_server(world: Any, mirror: Mirror, make_image: Any) -> None:
    data = make_image()
    fingerprint = hashlib.sha256(data).hexdigest()
    edited = {"properties": {"note": "its owner's"}, "expires_at": "2040-01-02T03:04:05+00:00", "filename": "tiny.tar.gz"}
    envelope = {"type": "sync", "metadata": {"fingerprint": fingerprint, "type": "container", "public": True, **edited}}
    alias = {"type": "sync", "metadata": {"name": "tiny", "target": fingerprint}}
    mirror.files["/1.0/images/aliases/tiny"] = json.dumps(alias).encode()
    mirror.files[f"/1.0/images/{fingerprint}"] = json.dumps(envelope).encode()
    mirror.files[f"/1.0/images/{fingerprint}/export"] = data
    assert (await pull(world, mirror, protocol="lxd", alias="tiny"))["metadata"]["fingerprint"] == fingerprint
    image = await world.get(f"/1.0/images/{fingerprint}")
    assert {key: image[key] for key in edited} == edited | {"expires_at": "2040-01-02T03:04:05Z"}
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
        {"certificate": "none"}, {"image_type": "virtual-machine"}, {"fingerprint": "../x"},
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
