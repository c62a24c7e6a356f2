"""Servers of images that mean harm: whatever they answer, the pull fails in time with its reason, and nothing of it stays."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from mirror import INDEX, PRODUCTS, Mirror, pull

from atoll.host import web
from atoll.services.images import stream_cache

pytestmark = pytest.mark.usefixtures("quick")
ZEROS = "0" * 64


@pytest.fixture(autouse=True)
async def nothing_stays(world: Any) -> AsyncIterator[None]:
    yield
    assert world.files() == []
    assert await world.get("/1.0/images") == []


def answer(mirror: Mirror, path: str, metadata: object) -> None:
    """What the server's API says there."""
    mirror.files[path] = json.dumps({"type": "sync", "metadata": metadata}).encode()


# --- documents ---------------------------------------------------------------------------------------------------------


async def test_an_index_that_unpacks_to_much(world: Any, mirror: Mirror) -> None:
    mirror.files[INDEX] = gzip.compress(bytes(32 << 20))
    mirror.extra = {"Content-Encoding": "gzip"}
    assert "larger than 1048576 bytes" in (await pull(world, mirror, alias="tiny/1"))["err"]


async def test_an_index_that_is_large(world: Any, mirror: Mirror) -> None:
    mirror.files[INDEX] = b" " * (stream_cache.LARGEST_INDEX + 1)
    assert "larger than 1048576 bytes" in (await pull(world, mirror, alias="tiny/1"))["err"]


@pytest.mark.parametrize(("packing", "reason"), [("br", "not asked for"), ("gzip", "broken answer")])
async def test_packings_that_cannot_be(world: Any, mirror: Mirror, packing: str, reason: str) -> None:
    mirror.files[INDEX] = b"{}"
    mirror.extra = {"Content-Encoding": packing}
    assert reason in (await pull(world, mirror, alias="tiny/1"))["err"]


async def test_an_index_nested_deeply(world: Any, mirror: Mirror) -> None:
    mirror.files[INDEX] = b"[" * 500_000
    assert "not JSON" in (await pull(world, mirror, alias="tiny/1"))["err"]


async def test_redirects_that_leave_https(world: Any, mirror: Mirror) -> None:
    for place in ("http://127.0.0.1:1/x", "file:///etc/passwd", "//127.0.0.1:1\\@x", "http:/", ""):
        mirror.moved[INDEX] = place
        error = (await pull(world, mirror, alias="tiny/1"))["err"]
        assert "no https:// address" in error or "redirects more than" in error or "cannot be reached" in error, place
    assert {path for _, path in mirror.requests} == {INDEX}


async def test_redirects_without_end(world: Any, mirror: Mirror) -> None:
    mirror.moved[INDEX] = INDEX
    assert "redirects more than 5 times" in (await pull(world, mirror, alias="tiny/1"))["err"]
    assert mirror.asked("index") == 5


# --- time --------------------------------------------------------------------------------------------------------------


async def test_headers_that_never_come(world: Any, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror.silent = INDEX
    monkeypatch.setattr(web, "ANSWER_SECONDS", 0.2)
    assert "does not answer" in (await pull(world, mirror, alias="tiny/1"))["err"]


async def test_a_document_that_drips(world: Any, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror.files[INDEX] = b" " * 1000
    mirror.drip = "index"
    monkeypatch.setattr(web.Web.document, "__kwdefaults__", {"etag": "", "seconds": 0.3})
    assert "in time" in (await pull(world, mirror, alias="tiny/1"))["err"]


async def test_a_file_that_drips(world: Any, mirror: Mirror, meta: bytes, rootfs: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sends often enough not to be silent, and would hold its connection for months."""
    mirror.offer("tiny/1", meta, rootfs)
    mirror.drip = "squashfs"
    pulling = asyncio.create_task(pull(world, mirror, alias="tiny/1"))
    await mirror.until_asked("squashfs")
    monkeypatch.setattr(web, "PACE_SECONDS", 0.2)
    assert "less than 1024 bytes a second" in (await pulling)["err"]
    assert mirror.asked("squashfs") == 1


# --- another server's API ----------------------------------------------------------------------------------------------


async def test_another_image_than_was_asked_for(world: Any, mirror: Mirror, make_image: Any) -> None:
    data = make_image()
    other = hashlib.sha256(data).hexdigest()
    answer(mirror, f"/1.0/images/{ZEROS}", {"fingerprint": other, "type": "container"})
    mirror.files[f"/1.0/images/{other}/export"] = data
    error = (await pull(world, mirror, protocol="lxd", fingerprint=ZEROS))["err"]
    assert "another image than it was asked for" in error
    assert mirror.asked("export") == 0


async def test_fingerprints_that_are_none(world: Any, mirror: Mirror) -> None:
    answer(mirror, "/1.0/images/aliases/tiny", {"target": ZEROS})
    for fingerprint in ("", "00", "../../x", "A" * 64, ZEROS + "0", "%", None, 7, [ZEROS]):
        answer(mirror, f"/1.0/images/{ZEROS}", {"fingerprint": fingerprint, "type": "container"})
        assert "Invalid fingerprint" in (await pull(world, mirror, protocol="lxd", alias="tiny"))["err"], fingerprint


async def test_aliases_that_lead_nowhere(world: Any, mirror: Mirror) -> None:
    for target in ("", "../../../etc", "x", None, {}, "0" * 65):
        answer(mirror, "/1.0/images/aliases/tiny", {"target": target})
        assert "Invalid fingerprint" in (await pull(world, mirror, protocol="lxd", alias="tiny"))["err"], target
    assert {path for _, path in mirror.requests} == {"/1.0/images/aliases/tiny"}


async def test_answers_that_are_none(world: Any, mirror: Mirror) -> None:
    for content in (b"", b"null", b"[]", b'{"metadata": []}', b"<html>", b"[" * 100_000):
        mirror.files[f"/1.0/images/{ZEROS}"] = content
        assert "does not answer as a server" in (await pull(world, mirror, protocol="lxd", fingerprint=ZEROS))["err"], content


async def test_a_description_that_is_large(world: Any, mirror: Mirror) -> None:
    answer(mirror, f"/1.0/images/{ZEROS}", {"fingerprint": ZEROS, "properties": {"a": "b" * (1 << 20)}})
    assert "larger than" in (await pull(world, mirror, protocol="lxd", fingerprint=ZEROS))["err"]


def form(*parts: tuple[str, bytes]) -> bytes:
    """A form of those parts, as it should be."""
    sent = b""
    for name, content in parts:
        sent += f'--cut\r\nContent-Disposition: form-data; name="{name}"; filename="/etc/x"\r\n\r\n'.encode() + content + b"\r\n"
    return sent + b"--cut--\r\n"


async def test_forms_that_are_no_image(world: Any, mirror: Mirror) -> None:
    answer(mirror, f"/1.0/images/{ZEROS}", {"fingerprint": ZEROS, "type": "container"})
    mirror.extra = {"Content-Type": 'multipart/form-data; boundary="cut"'}
    for body in (
        form(("rootfs", b"r"), ("metadata", b"m")),
        form(("metadata", b"m")),
        form(("metadata", b"m"), ("../rootfs", b"r")),
        form(("metadata", b"m"), ("rootfs", b"r"), ("more", b"x")),
        form(("metadata", b"m"), ("rootfs", b"r")),
        form(("metadata", b"m"), ("rootfs", b"r"))[:-15],
        b"no form at all",
        b"",
    ):
        mirror.files[f"/1.0/images/{ZEROS}/export"] = body
        ended = await pull(world, mirror, protocol="lxd", fingerprint=ZEROS)
        assert ended["status"] == "Failure", body
        assert "Error:" not in ended["err"]  # no defect of ours


# --- what an address answers -------------------------------------------------------------------------------------------


async def test_addresses_that_lead_elsewhere(world: Any, mirror: Mirror) -> None:
    for url, fingerprint in (
        ("http://127.0.0.1:1/file", ZEROS), ("file:///etc/passwd", ZEROS), ("/file", ZEROS),
        ("https://127.0.0.1:1/", "../x"), ("https://127.0.0.1:1/", "00"), ("", ZEROS),
    ):  # fmt: skip
        mirror.heads["/here"] = {"LXD-Image-URL": url, "LXD-Image-Hash": fingerprint}
        ended = await pull(world, mirror, protocol="direct", server=f"{mirror.address}/here")
        assert ended["status_code"] == 400, (url, fingerprint)


async def test_a_file_larger_than_an_image_may_be(
    world: Any, mirror: Mirror, make_image: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atoll.services.images.receive.MAX_BYTES", 100)
    data = make_image()
    mirror.heads["/here"] = {
        "LXD-Image-URL": f"{mirror.address}/file", "LXD-Image-Hash": hashlib.sha256(data).hexdigest()
    }  # fmt: skip
    mirror.files["/file"] = data
    ended = await pull(world, mirror, protocol="direct", server=f"{mirror.address}/here")
    assert "larger than 100 bytes" in ended["err"]


@pytest.mark.parametrize("part", ["bytes 7-", "bytes */*", ""])
async def test_another_part_than_was_asked_for(world: Any, mirror: Mirror, meta: bytes, rootfs: bytes, part: str) -> None:
    mirror.offer("tiny/1", meta, rootfs)
    path = next(path for path in mirror.files if path.endswith("squashfs"))
    mirror.broken[path] = 700_000
    mirror.part = part
    assert "another part" in (await pull(world, mirror, alias="tiny/1"))["err"]


async def test_products_named_twice_are_read_once_each(world: Any, mirror: Mirror) -> None:
    entry = {"datatype": "image-downloads", "path": PRODUCTS[1:]}
    mirror.files[INDEX] = json.dumps({"index": {str(n): entry for n in range(1000)}}).encode()
    mirror.files[PRODUCTS] = b'{"products": {}}'
    assert "has no image" in (await pull(world, mirror, alias="tiny/1"))["err"]
    assert mirror.asked("images.json") == 1
    entries = {str(n): {**entry, "path": f"streams/v1/{n}.json"} for n in range(1000)}
    mirror.files[INDEX] = json.dumps({"index": entries}).encode()
    assert "more than 32 product files" in (await pull(world, mirror, alias="tiny/1"))["err"]


async def test_many_files_of_products_are_not_read_without_end(
    world: Any, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_cache, "LARGEST_PRODUCTS", 1000)
    paths = [f"streams/v1/{n}.json" for n in range(4)]
    entries = {path: {"datatype": "image-downloads", "path": path} for path in paths}
    mirror.files[INDEX] = json.dumps({"index": entries}).encode()
    for path in paths:
        mirror.files[f"/{path}"] = b'{"products": {}}'.ljust(400)
    assert "larger than 200 bytes" in (await pull(world, mirror, alias="tiny/1"))["err"]
    assert mirror.asked(".json") == 4  # the index, and three of the products
