"""Hostile names in every field of the image routes that has a name: nothing is accepted, nothing appears on disk."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

HOSTILE = ["..", "../x", "a/../../b", "\0", "a\nb", "-rf", "$(id)\x7f", "", "x" * 65536]
PATTERNS = ["%", "_" * 64, "%%", "$(id)", "/abs", "%2f", "%252f", "a" * 65]


@pytest.mark.parametrize("name", HOSTILE, ids=repr)
async def test_aliases(world: Any, make_image: Any, name: str) -> None:
    fingerprint = await world.add(make_image(), aliases="alias=good")
    before = world.files()
    new = {"name": name, "target": fingerprint}
    base = "/1.0/images/aliases"
    assert (await world.call("POST", base, new)).status == 400
    assert (await world.call("POST", f"{base}/good", {"name": name})).status == 400
    build = {"type": "build", "distribution": "busybox"}
    assert (await world.call("POST", "/1.0/images", {"source": build, "aliases": [{"name": name}]})).status == 400
    header = {"X-LXD-aliases": f"alias={quote(name[:8000], safe='')}"}
    assert (await world.client.post("/1.0/images", data=b"x", headers=header)).status == 400
    if name and len(name) < 4000:
        answer = await world.client.get(f"{base}/{quote(name, safe='')}")
        assert 400 <= answer.status < 500
    assert (await world.get(base), world.files()) == ([f"{base}/good"], before)


@pytest.mark.parametrize("name", [*HOSTILE, *PATTERNS], ids=repr)
async def test_fingerprints(world: Any, make_image: Any, name: str) -> None:
    fingerprint = await world.add(make_image(), aliases="alias=good")
    if name:
        assert (await world.call("POST", "/1.0/images/aliases", {"name": "x", "target": name})).status == 404
    assert 400 <= (await world.call("POST", "/1.0/images", {"source": {"type": "image", "fingerprint": name}})).status < 500
    if name.isprintable() and name:
        headers = {"X-LXD-fingerprint": name[:4000], "Content-Type": "application/octet-stream"}
        assert (await world.client.post("/1.0/images", data=b"x", headers=headers)).status == 400
    if name and len(name) < 4000:
        for method, tail in (("GET", ""), ("PUT", ""), ("DELETE", ""), ("GET", "/export"), ("POST", "/secret")):
            answer = await world.call(method, f"/1.0/images/{quote(name, safe='')}{tail}", {})
            assert 400 <= answer.status < 500, (method, tail)
    assert await world.get("/1.0/images") == [f"/1.0/images/{fingerprint}"]
    assert world.files() == [fingerprint]


@pytest.mark.parametrize("name", ["..", "../x", "/abs", "a/b", "-rf", "x" * 300], ids=repr)
@pytest.mark.parametrize("header", ["X-LXD-filename", "X-LXD-profiles", "project"])
async def test_other_names(world: Any, header: str, name: str) -> None:
    if header == "project":
        answer = await world.client.post("/1.0/images", params={"project": name}, data=b"x")
        assert (await world.client.get("/1.0/images", params={"project": name})).status == 400
    else:
        value = f"profile={name}" if header == "X-LXD-profiles" else name
        answer = await world.client.post("/1.0/images", data=b"x", headers={header: value})
    assert answer.status == 400
    assert world.files() == []


@pytest.mark.parametrize("header", ["X-LXD-properties", "X-LXD-aliases", "X-LXD-profiles"])
async def test_too_much_in_headers(world: Any, header: str) -> None:
    answer = await world.client.post("/1.0/images", data=b"x", headers={header: "&".join(["a=b"] * 1500)})
    assert 400 <= answer.status < 500
    assert world.files() == []


async def test_headers_that_are_not_utf8(world: Any) -> None:
    import asyncio

    reader, writer = await asyncio.open_connection(world.client.host, world.client.port)
    writer.write(b"POST /1.0/images HTTP/1.1\r\nHost: x\r\nX-LXD-filename: \xff\xfe\r\nContent-Length: 1\r\n\r\nx")
    assert b" 400 " in await reader.readline()
    writer.close()
    assert world.files() == []
