"""A server of images over TLS on loopback: simplestreams, and what else it is told to answer. It can misbehave."""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

INDEX = "/streams/v1/index.json"
PRODUCTS = "/streams/v1/images.json"


class Mirror:
    """Files by path. `broken`: paths whose next answer ends after so many bytes; `moved`: where redirects lead; `extra`: headers
    of all answers; `later`: what a path has after its first answer; `stuck`, `drip`: what is in the paths of answers whose body
    does not begin before it is freed, or comes byte by byte; `silent`: a path without an answer; `part`: which part of a file
    answers say to be; `taken`: how many bytes of files the client has read."""

    def __init__(self, folder: Path) -> None:
        self.files: dict[str, bytes] = {}
        self.broken: dict[str, int] = {}
        self.heads: dict[str, Mapping[str, str]] = {}
        self.moved: dict[str, str] = {}
        self.extra: dict[str, str] = {}
        self.later: dict[str, bytes] = {}
        self.ranges: list[str] = []
        self.stuck = ""
        self.drip = ""
        self.silent = ""
        self.part: str | None = None
        self.taken = 0
        self._stopping = asyncio.Event()
        self._freed = asyncio.Event()
        self.requests: list[tuple[str, str]] = []
        self.products: dict[str, Any] = {}
        self.certificate, context = server_tls(folder)
        self._context = context
        self._runner: web.AppRunner
        self.address = ""

    async def start(self) -> None:
        """Listen on a free port of loopback."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._context)
        await site.start()
        self.address = f"https://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Listen no longer."""
        self._stopping.set()
        self.free()
        await self._runner.cleanup()

    def free(self) -> None:
        """Let go what is stuck."""
        self.stuck = ""
        self._freed.set()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path_qs
        self.requests.append((request.method, path))
        if request.method == "HEAD" and path in self.heads:
            return web.Response(headers=self.heads[path])
        if path == self.silent:
            await self._stopping.wait()
        if path in self.moved:
            return web.Response(status=302, headers={"Location": self.moved[path]})
        body = self.files.get(path)
        if body is None:
            return web.Response(status=404)
        etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304)
        begin = 0
        if "Range" in request.headers and request.headers.get("If-Range", etag) == etag:
            self.ranges.append(request.headers["Range"])
            begin = int(request.headers["Range"].removeprefix("bytes=").rstrip("-"))
        headers = {"ETag": etag, "Content-Length": str(len(body) - begin), **self.extra}
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(body) - 1}/{len(body)}" if self.part is None else self.part
        answer = web.StreamResponse(status=206 if begin else 200, headers=headers)
        await answer.prepare(request)
        while self.drip and self.drip in path and not self._stopping.is_set():
            await answer.write(body[begin : begin + 1])
            begin += 1
            await asyncio.sleep(0.02)
        if self.stuck and self.stuck in path:
            await self._freed.wait()
        cut, taken = self.broken.pop(path, None), self.taken
        self.files[path] = self.later.pop(path, self.files[path])
        await answer.write(body[begin : None if cut is None else begin + cut])
        if cut is not None and request.transport is not None:
            await self._until(lambda: self.taken >= taken + cut)  # what is not read when the connection breaks is lost
            request.transport.close()
        return answer

    def offer(self, alias: str, meta: bytes, rootfs: bytes, *, version: str = "20260101_05:24", arch: str = "amd64") -> str:
        """Add an image of two files to the products; returns its fingerprint."""
        fingerprint = hashlib.sha256(meta + rootfs).hexdigest()
        folder = f"images/{alias}/{arch}/{version}"
        combined = {"combined_squashfs_sha256": fingerprint}
        items = {
            "lxd.tar.xz": {**self._item(f"{folder}/lxd.tar.xz", meta), "ftype": "lxd.tar.xz", **combined},
            "root.squashfs": {**self._item(f"{folder}/rootfs.squashfs", rootfs), "ftype": "squashfs"},
        }  # fmt: skip
        key = f"{alias}:{arch}"
        product = self.products.setdefault(
            key, {"aliases": f"{alias},{alias}/default", "arch": arch, "os": "Tiny", "release": "one", "versions": {}}
        )
        product["versions"][version] = {"items": items}
        self.publish()
        return fingerprint

    def lie(self, about: str) -> str:
        """Announce an image that is not the one there, wrong in its `hash`, its `combined` one, or its size (`larger`: than said;
        `shorter`); returns the fingerprint that is announced."""
        (product,) = self.products.values()
        ((_, version),) = product["versions"].items()
        meta, root = version["items"]["lxd.tar.xz"], version["items"]["root.squashfs"]
        match about:
            case "hash":
                root["sha256"] = "0" * 64
            case "combined":
                meta["combined_squashfs_sha256"] = "0" * 64
            case "larger":
                root["size"] -= 1
            case _:
                root["size"] += 1
        self.publish()
        fingerprint: str = meta["combined_squashfs_sha256"]
        return fingerprint

    def publish(self) -> None:
        """Write index and products as they are now."""
        entry = {"datatype": "image-downloads", "path": PRODUCTS[1:], "products": list(self.products)}
        self.files[INDEX] = json.dumps({"format": "index:1.0", "index": {"images": entry}}).encode()
        self.files[PRODUCTS] = json.dumps({"format": "products:1.0", "products": self.products}).encode()

    def _item(self, path: str, content: bytes) -> dict[str, Any]:
        self.files[f"/{path}"] = content
        return {"path": path, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}

    async def until_asked(self, word: str) -> None:
        """Wait for a request with that in its path."""
        await self._until(lambda: self.asked(word) > 0)

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 - the server's own figures tell nobody that they grew
                await asyncio.sleep(0.01)

    def asked(self, word: str) -> int:
        """How many requests had that in their path."""
        return sum(word in path for _, path in self.requests)


def body(mirror: Mirror, *, protocol: str = "simplestreams", **fields: Any) -> dict[str, Any]:
    source = {"type": "image", "mode": "pull", "server": mirror.address, "protocol": protocol, "certificate": mirror.certificate}
    extra = {key: fields.pop(key) for key in ("auto_update", "aliases", "public", "profiles") if key in fields}
    return {"source": {**source, **fields}, **extra}


async def pull(world: Any, mirror: Mirror, **fields: Any) -> dict[str, Any]:
    ended: dict[str, Any] = await world.ended(await world.call("POST", "/1.0/images", body(mirror, **fields)))
    return ended


def server_tls(folder: Path) -> tuple[str, ssl.SSLContext]:
    """(certificate in PEM, context of a server that has it)"""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mirror")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    path = folder / "mirror.pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    return pem.decode(), context
