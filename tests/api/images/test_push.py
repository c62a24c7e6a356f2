"""Images that one server sends to another: two applications of ours, one of them behind TLS for strangers."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import FormData, web
from conftest import ADMIN, World
from mirror import Mirror, server_tls

from atoll.domain.caller import NOBODY
from atoll.services.images import push as push_module

pytestmark = pytest.mark.usefixtures("quick")


class Target:
    """A second server: `world` is asked by an administrator, `address` by strangers."""

    def __init__(self, world: World, certificate: str) -> None:
        self.world = world
        self.certificate = certificate
        self.address = ""

    async def listen(self, context: ssl.SSLContext) -> web.TCPSite:
        runner = self.world.client.server.runner
        assert runner is not None
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        self.address = f"https://127.0.0.1:{runner.addresses[-1][1]}"
        return site

    async def token(self, fingerprint: str, *, project: str = "default", **wishes: Any) -> str:
        """The secret of a token that an administrator asks for."""
        body = {"source": {"mode": "push", "fingerprint": fingerprint}, **wishes}
        self.world.caller = ADMIN
        answer = await self.world.call("POST", f"/1.0/images?project={project}", body)
        content = await answer.json()
        assert answer.status == 202, content
        self.world.caller = NOBODY
        secret: str = content["metadata"]["metadata"]["secret"]
        return secret

    async def images(self) -> list[dict[str, Any]]:
        """As the administrator sees them."""
        self.world.caller = ADMIN
        found: list[dict[str, Any]] = await self.world.get("/1.0/images?recursion=1")
        self.world.caller = NOBODY
        return found


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[Target]:
    folder = tmp_path / "target"
    folder.mkdir()
    certificate, context = server_tls(folder)
    async with World(folder).running() as world:
        found = Target(world, certificate)
        site = await found.listen(context)
        try:
            yield found
        finally:
            await site.stop()


async def push(world: Any, target: Target, fingerprint: str, secret: str, **fields: Any) -> str:
    """The error of a push, empty for none."""
    body = {"target": target.address, "certificate": target.certificate, "secret": secret, **fields}
    ended = await world.ended(await world.call("POST", f"/1.0/images/{fingerprint}/export", body))
    error: str = ended["err"]
    return error


async def test_a_unified_image(world: Any, target: Target, make_image: Any) -> None:
    fingerprint = await world.add(make_image())
    wishes = {"public": True, "properties": {"a": "b"}, "aliases": [{"name": "mine"}], "expires_at": "2100-01-01T00:00:00Z"}
    secret = await target.token(fingerprint, **wishes)
    assert await push(world, target, fingerprint, secret, profiles=["default"]) == ""
    (image,) = await target.images()
    assert (image["fingerprint"], image["public"], image["properties"]["a"]) == (fingerprint, True, "b")
    assert (image["aliases"][0]["name"], image["expires_at"][:4], image["profiles"]) == ("mine", "2100", ["default"])


async def test_who_asks_for_the_token_chooses_the_profiles(world: Any, target: Target, make_image: Any) -> None:
    fingerprint = await world.add(make_image())
    secret = await target.token(fingerprint, profiles=[])
    assert await push(world, target, fingerprint, secret, profiles=["default"]) == ""
    assert [image["profiles"] for image in await target.images()] == [[]]


async def test_a_split_image(world: Any, target: Target, meta: bytes, rootfs: bytes) -> None:
    form = FormData()
    form.add_field("metadata", meta, filename="m", content_type="application/octet-stream")
    form.add_field("rootfs", rootfs, filename="r", content_type="application/octet-stream")
    fingerprint = (await world.upload(form))["metadata"]["fingerprint"]
    assert await push(world, target, fingerprint, await target.token(fingerprint)) == ""
    assert target.world.files() == [fingerprint, f"{fingerprint}.rootfs"]


async def test_a_secret_opens_one_upload_of_one_image(world: Any, target: Target, make_image: Any) -> None:
    wanted, other = [await world.add(make_image(serial=str(n))) for n in range(2)]
    secret = await target.token(wanted)
    assert "not for this server" in await push(world, target, other, secret)
    assert "not for this server" in await push(world, target, wanted, "0" * 64)
    assert "not for this server" in await push(world, target, wanted, secret, project="other")
    assert await push(world, target, wanted, secret) == ""
    assert "not for this server" in await push(world, target, wanted, secret)
    assert [image["fingerprint"] for image in await target.images()] == [wanted]


async def test_strangers_get_nothing_without_a_token(world: Any, target: Target, make_image: Any) -> None:
    target.world.caller = NOBODY
    data = make_image()
    for headers in ({}, {"X-LXD-secret": "x"}, {"X-LXD-secret": "", "X-LXD-fingerprint": "0" * 64}):
        named = {"Content-Type": "application/octet-stream", **headers}
        assert (await target.world.client.post("/1.0/images", data=data, headers=named)).status == 403
    for source in ({"mode": "push", "fingerprint": "0" * 64}, {"type": "build"}, {"type": "image", "alias": "x"}):
        assert (await target.world.call("POST", "/1.0/images", {"source": source})).status == 403
    assert target.world.files() == []


async def test_another_image_than_the_token_is_for(world: Any, target: Target, make_image: Any) -> None:
    """The sender names the right one and sends another."""
    fingerprint = await world.add(make_image())
    secret = await target.token(fingerprint)
    world.images.files.meta(fingerprint).write_bytes(make_image(serial="9"))
    assert "fingerprints don't match" in await push(world, target, fingerprint, secret)
    assert (await target.images(), target.world.files()) == ([], [])


async def test_the_target_is_known_by_its_certificate(world: Any, target: Target, make_image: Any, tmp_path: Path) -> None:
    fingerprint = await world.add(make_image())
    secret = await target.token(fingerprint)
    folder = tmp_path / "other"
    folder.mkdir()
    assert "not the known one" in await push(world, target, fingerprint, secret, certificate=server_tls(folder)[0])
    assert "cannot be reached" in await push(world, target, fingerprint, secret, certificate="")
    assert await target.images() == []


async def test_orders_that_cannot_be(world: Any, make_image: Any) -> None:
    fingerprint = await world.add(make_image())
    for fields in (
        {"target": "http://127.0.0.1:1"}, {"target": "unix:///x"}, {"target": ""}, {"target": "https://[x"}, {"secret": ""},
        {"secret": "a\r\nX-LXD-public: true"}, {"certificate": "x"}, {"project": "../x"}, {"profiles": ["a/b"]},
    ):  # fmt: skip
        body = {"target": "https://127.0.0.1:1", "secret": "s", **fields}
        assert (await world.call("POST", f"/1.0/images/{fingerprint}/export", body)).status == 400, fields


async def test_tokens_that_cannot_be(world: Any) -> None:
    for fingerprint in ("", "00", "tiny", "../x", "0" * 65):
        answer = await world.call("POST", "/1.0/images", {"source": {"mode": "push", "fingerprint": fingerprint}})
        assert (answer.status, "Image not found" in await answer.text()) == (404, True), fingerprint


async def test_a_cancelled_token_opens_nothing(world: Any, target: Target, make_image: Any) -> None:
    fingerprint = await world.add(make_image())
    secret = await target.token(fingerprint)
    (token,) = target.world.operations.find_all()
    assert secret not in str(token.wire())
    target.world.operations.cancel(token)
    assert "not for this server" in await push(world, target, fingerprint, secret)


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        ({"id": "../x?", "status_code": 103}, "does not say what became of it"),
        ({"id": "x", "status_code": 400, "err": "no room"}, "no room"),
        ({"id": "x", "status_code": 400, "err": "\x1b[2J\n\x9bno room" + "!" * 1000}, "image:  [2J  no room!!!"),
        ({"id": "x", "status_code": None}, "does not say"),
        ({"id": "x", "status_code": 103, "metadata": []}, "does not say"),
        ([], "does not answer as a server"),
    ],
)
async def test_targets_that_mean_harm(
    world: Any, mirror: Mirror, make_image: Any, monkeypatch: pytest.MonkeyPatch, operation: object, reason: str
) -> None:
    monkeypatch.setattr(push_module, "TAKE_IN_SECONDS", 0.3)
    fingerprint = await world.add(make_image())
    mirror.files["/1.0/images"] = json.dumps({"metadata": operation}).encode()
    for name in ("x", "..%2Fx%3F"):
        mirror.files[f"/1.0/operations/{name}/wait?secret=&timeout=20"] = mirror.files["/1.0/images"]
    body = {"target": mirror.address, "certificate": mirror.certificate, "secret": "s"}
    ended = await world.ended(await world.call("POST", f"/1.0/images/{fingerprint}/export", body))
    assert reason in ended["err"]
    assert ended["err"].isprintable() and len(ended["err"]) < 700
    assert len(mirror.requests) <= 3
