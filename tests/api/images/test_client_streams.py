"""The client's own look at image servers, also at those that mean harm."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from mirror import INDEX, PRODUCTS, Mirror

from atoll.client import streams
from atoll.client.errors import ClientError, ServerError
from atoll.client.streams import ImageServer
from atoll.host.threads import in_thread

T = TypeVar("T")


def ignore(there: int, size: int) -> None:
    """Nobody looks at the progress."""


async def with_server(mirror: Mirror, use: Callable[[ImageServer], T]) -> T:
    """What a use of that image server returns; the client blocks, so it has a thread."""
    return await in_thread(lambda: use(ImageServer(mirror.address, known=ssl.PEM_cert_to_DER_cert(mirror.certificate))))


async def refused(mirror: Mirror, use: Callable[[ImageServer], object]) -> str:
    """What the client says when that cannot be done."""
    with pytest.raises(ClientError) as caught:
        await with_server(mirror, use)
    return str(caught.value)


async def test_what_there_is(mirror: Mirror, meta: bytes, rootfs: bytes) -> None:
    fingerprint = mirror.offer("tiny/1", meta, rootfs, arch=streams.os.uname().machine)
    (image,) = await with_server(mirror, lambda server: server.get("/1.0/images?recursion=1"))
    assert (image["fingerprint"], image["size"], "files" in image) == (fingerprint, len(meta + rootfs), False)
    alias = await with_server(mirror, lambda server: server.get("/1.0/images/aliases/tiny%2F1%2Fdefault"))
    assert alias == {"name": "tiny/1/default", "description": "", "target": fingerprint, "type": "container"}
    assert (await with_server(mirror, lambda server: server.get(f"/1.0/images/{fingerprint[:12]}")))["type"] == "container"
    assert len(await with_server(mirror, lambda server: server.get("/1.0/images/aliases?recursion=1"))) == 4


async def test_an_export(mirror: Mirror, meta: bytes, rootfs: bytes, tmp_path: Path) -> None:
    fingerprint = mirror.offer("tiny/1", meta, rootfs)
    path = next(path for path in mirror.files if path.endswith("squashfs"))
    mirror.moved[path] = "/elsewhere"
    mirror.files["/elsewhere"] = rootfs
    told: list[tuple[int, int]] = []
    saved = await with_server(mirror, lambda server: server.save(fingerprint, f"{tmp_path}/x", lambda *now: told.append(now)))
    assert [(tmp_path / name).read_bytes() for name in ("x.tar.xz", "x.squashfs")] == [meta, rootfs]
    assert saved == [f"{tmp_path}/x.tar.xz", f"{tmp_path}/x.squashfs"]
    assert told[-1] == (len(meta + rootfs),) * 2


@pytest.mark.parametrize("lie", ["hash", "combined", "larger"])
async def test_a_lie_leaves_nothing(mirror: Mirror, meta: bytes, rootfs: bytes, tmp_path: Path, lie: str) -> None:
    mirror.offer("tiny/1", meta, rootfs)
    fingerprint = mirror.lie(lie)
    folder = tmp_path / "to"
    folder.mkdir()
    assert "announced" in await refused(mirror, lambda server: server.save(fingerprint, f"{folder}/x", ignore))
    assert list(folder.iterdir()) == []


async def test_documents_that_cannot_be(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LARGEST_DOCUMENT", 100_000)
    for content, reason in ((b"", "not JSON"), (b"[" * 99_000, "not JSON"), (b"\xff", "not JSON"), (b" " * 100_001, "larger")):
        mirror.files[INDEX] = content
        assert reason in await refused(mirror, lambda server: server.get("/1.0/images?recursion=1"))
    mirror.moved[INDEX] = INDEX
    assert "redirects too often" in await refused(mirror, lambda server: server.get("/1.0/images?recursion=1"))
    for place in ("http://127.0.0.1:1/", "file:///etc/passwd"):
        mirror.moved[INDEX] = place
        assert "not an https:// address" in await refused(mirror, lambda server: server.get("/1.0/images?recursion=1"))
    assert mirror.asked(PRODUCTS) == 0


async def test_only_the_known_certificate(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = ssl.PEM_cert_to_DER_cert(Mirror(tmp_path / "other").certificate)
    for known in (other, None):
        with pytest.raises(ClientError, match="certificate"):
            await in_thread(lambda known=known: ImageServer(mirror.address, known=known).get("/1.0/images"))
    assert mirror.requests == []


async def test_it_is_no_server_of_anything_else(mirror: Mirror) -> None:
    uses: tuple[Callable[[ImageServer], Any], ...] = (
        lambda server: server.get("/1.0"),
        lambda server: server.get("/1.0/instances"),
        lambda server: server.request("POST", "/1.0/images", {}),
        lambda server: server.request("DELETE", "/1.0/images/x"),
        lambda server: server.exchange("GET", "/1.0/images/x/export", {}),
    )
    for use in uses:
        assert "images only" in await refused(mirror, use)
    assert mirror.requests == []


async def test_what_is_not_there(mirror: Mirror, meta: bytes, rootfs: bytes) -> None:
    mirror.offer("tiny/1", meta, rootfs)
    for path in ("images/0123", "images/aliases/huge", "images/x/y/z"):
        with pytest.raises(ServerError) as caught:
            await with_server(mirror, lambda server, path=path: server.get(f"/1.0/{path}"))
        assert caught.value.status == 404
