"""Metrics: who may read them where, what is in them, how long they hold."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from atoll.domain.caller import Caller, Protocol
from atoll.services import metrics

PATH = "/1.0/metrics"
API, METRICS = "core.https_address", "core.metrics_address"


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return f"127.0.0.1:{sock.getsockname()[1]}"


class Door:
    """Asks by HTTPS, with a certificate or without, at the addresses of the API and of metrics."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._addresses = {API: free_address(), METRICS: free_address()}

    async def open(self) -> None:
        await self._app.do("PATCH", "/1.0", {"config": self._addresses})

    async def get(self, path: str, identity: Any = None, *, at: str = METRICS) -> tuple[int, str]:
        """(status, body)"""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if identity is not None:
            context.load_cert_chain(identity.certificate, identity.key)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
            async with session.get(f"https://{self._addresses[at]}{path}") as answer:
                return answer.status, await answer.text()


@pytest.fixture
async def door(app: Any) -> AsyncIterator[Door]:
    """Two projects, in each an instance that runs and one that does not."""
    await app.do("POST", "/1.0/projects", {"name": "blue", "config": {"features.profiles": "false", "features.images": "false"}})
    for query in ("", "?project=blue"):
        prefix = "blue" if query else "plain"
        for name in (f"{prefix}-on", f"{prefix}-off"):
            await app.create(name, query=query)
        await app.do("PUT", f"/1.0/instances/{prefix}-on/state{query}", {"action": "start", "timeout": 5})
    made = Door(app)
    await made.open()
    yield made


async def trust(app: Any, identity: Any, **fields: Any) -> None:
    await app.do("POST", "/1.0/certificates", {"certificate": identity.base64, "name": "me", **fields})


def names(text: str) -> set[str]:
    """The instances that a text of metrics is about."""
    assert text.endswith("# EOF\n")
    return set(re.findall(r',?name="([^"]+)"', text))


async def read(app: Any, query: str = "") -> set[str]:
    async with app.session.get(f"{PATH}{query}") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/plain"
        return names(await answer.text())


async def test_running_instances_by_project(app: Any, door: Door) -> None:
    assert await read(app) == {"plain-on", "blue-on"}
    assert await read(app, "?project=default") == {"plain-on"}
    assert await read(app, "?project=blue") == {"blue-on"}
    assert await read(app, "?project=nowhere") == set()
    assert (await app.refused("GET", f"{PATH}?project=a/b"))[0] == 400


async def test_the_address_of_metrics_serves_nothing_else(app: Any, door: Door, make_certificate: Any) -> None:
    admin = make_certificate()
    await trust(app, admin)
    for path in ("/", "/1.0", PATH):
        assert (await door.get(path, admin))[0] == 200
    for path in ("/1.0/instances", "/1.0/certificates", "/1.0/events", "/internal/ready", "/openapi.json"):
        assert (await door.get(path, admin))[0] == 404, path


async def test_who_may_read_them(app: Any, door: Door, make_certificate: Any) -> None:
    kinds = {
        "none": (None, None), "unknown": (make_certificate(), None), "metrics": (make_certificate(), {"type": "metrics"}),
        "client": (make_certificate(), {}), "blue": (make_certificate(), {"restricted": True, "projects": ["blue"]}),
        "blue metrics": (make_certificate(), {"type": "metrics", "restricted": True, "projects": ["blue"]}),
    }  # fmt: skip
    for identity, fields in kinds.values():
        if fields is not None:
            await trust(app, identity, **fields)
    everything = {"plain-on", "blue-on"}
    seen = {"metrics": everything, "client": everything, "blue": {"blue-on"}, "blue metrics": {"blue-on"}}
    for at in (API, METRICS):
        for kind, (identity, _) in kinds.items():
            status, text = await door.get(PATH, identity, at=at)
            assert (status, names(text) if status == 200 else None) == (200 if kind in seen else 403, seen.get(kind)), (kind, at)
            foreign = (await door.get(f"{PATH}?project=default", identity, at=at))[0]
            assert foreign == (200 if seen.get(kind) == everything else 403), (kind, at)
    await app.do("PATCH", "/1.0", {"config": {"core.metrics_authentication": "false"}})
    for kind, (identity, _) in kinds.items():
        assert names((await door.get(PATH, identity))[1]) == everything, kind
        assert (await door.get("/1.0/instances", identity, at=API))[0] == (200 if kind in ("client",) else 403), kind


async def test_they_are_counted_once_for_all_who_ask(app: Any, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = 0
    real = metrics.MetricsService._count

    async def count(self: metrics.MetricsService) -> Any:
        nonlocal counted
        counted += 1
        return await real(self)

    now = 0.0
    monkeypatch.setattr(metrics.MetricsService, "_count", count)
    service = metrics.MetricsService(app.daemon.instances.core, lambda: now)
    texts = await asyncio.gather(*(service.text(None) for _ in range(20)))
    assert counted == 1 and len(set(texts)) == 1
    await app.set_state("plain-on", "stop", force=True)
    now = metrics.HOLDS_SECONDS - 0.1
    assert b"plain-on" in await service.text(None)
    assert b"plain-on" not in await service.text(frozenset({"blue"}))
    now = metrics.HOLDS_SECONDS
    assert b"plain-on" not in await service.text(None)
    assert counted == 2


async def test_a_pool_that_is_away_takes_only_its_disks_along(app: Any, door: Door) -> None:
    service = metrics.MetricsService(app.daemon.instances.core)
    assert b"lxd_filesystem_size_bytes" in await service.text(None)
    driver = app.daemon.storage._open.pop("pool")
    try:
        text = await metrics.MetricsService(app.daemon.instances.core).text(None)
    finally:
        app.daemon.storage._open["pool"] = driver
    assert b"lxd_filesystem_size_bytes" not in text
    assert b"lxd_procs_total" in text


async def test_a_certificate_for_metrics_does_nothing_else(app: Any, door: Door, make_certificate: Any) -> None:
    identity = make_certificate()
    await trust(app, identity, type="metrics")
    for path in (
        "/1.0/instances",
        "/1.0/events",
        "/1.0/certificates",
        "/1.0/resources",
        f"/1.0/certificates/{identity.fingerprint}",
    ):
        assert (await door.get(path, identity, at=API))[0] == 403, path
    app.caller = Caller(Protocol.TLS, username="x", trusted=True, certificate_type="metrics")
    assert (await app.refused("GET", "/1.0/instances"))[0] == 403
