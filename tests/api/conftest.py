"""The whole daemon in this process: real API, services and database on a folder of its own; instances, volumes and networks of
the `sim` drivers, so that nothing of the host changes. Requests go over its unix socket.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from atoll.api import dispatch
from atoll.api.listeners import Listeners
from atoll.domain.caller import Caller
from atoll.domain.idmap import IdMap
from atoll.domain.paths import Paths
from atoll.drivers import network as network_drivers
from atoll.drivers import storage as storage_drivers
from atoll.drivers.network.sim import SimNetwork
from atoll.drivers.storage.contract import Mounted, VolumeId
from atoll.drivers.storage.sim import SimStorage
from atoll.host import folders
from atoll.runtime.assembly import Daemon

POOL, NETWORK = "pool", "net0"
FINAL = {"Success", "Failure", "Cancelled"}


class Volumes(SimStorage):
    """`sim` under the name of a driver that the API knows, with folders that machines can be started on."""

    name = "dir"

    async def mount(self, volume: VolumeId, idmap: IdMap | None) -> Mounted:
        mounted = await super().mount(volume, idmap)
        mounted.rootfs.mkdir(parents=True, exist_ok=True)
        return mounted


class App:
    """The daemon, and requests to it. `caller` makes the next requests come from somebody else."""

    def __init__(self, root: Path) -> None:
        self.paths = Paths(root)
        self.daemon = Daemon(self.paths, driver="sim")
        self.caller: Caller | None = None
        self.session: aiohttp.ClientSession
        self.application: web.Application

    async def start(self) -> None:
        """As `atolld` does."""
        folders.make_state(self.paths)
        self.session = aiohttp.ClientSession("http://atoll", connector=aiohttp.UnixConnector(str(self.paths.socket)))
        await self.daemon.start(group="root")

    async def stop(self) -> None:
        """All of it."""
        await self.session.close()
        await self.daemon.stop()

    async def restart(self) -> None:
        """Another daemon on the same folder."""
        await self.stop()
        self.daemon = Daemon(self.paths, driver="sim")
        await self.start()

    async def call(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, dict[str, Any]]:
        """(status, envelope) of a request. Whatever is asked, the answer has LXD's envelope."""
        async with self.session.request(method, path, json=body, **options) as answer:
            content: dict[str, Any] = json.loads(await answer.read())
        assert content["type"] == ("error" if answer.status >= 400 else "async" if answer.status == 202 else "sync")
        assert set(content) == {"type", "status", "status_code", "operation", "error_code", "error", "metadata"}
        if content["type"] == "error":
            assert content["error_code"] == answer.status
            assert content["error"]
        return answer.status, content

    async def get(self, path: str, **options: Any) -> Any:
        """The metadata of a GET that has to succeed."""
        status, content = await self.call("GET", path, **options)
        assert status == 200, content
        return content["metadata"]

    async def do(self, method: str, path: str, body: Any = None, **options: Any) -> dict[str, Any]:
        """A request that has to succeed; for an operation, until it has."""
        status, content = await self.call(method, path, body, **options)
        assert status < 300, content
        if status != 202:
            return content
        ended: dict[str, Any] = await self.ended(content)
        assert ended["err"] == "", ended
        return ended

    async def ended(self, content: Mapping[str, Any]) -> Any:
        """The operation of an answer, as it ended."""
        ended = await self.get(f"{content['operation']}/wait?timeout=60")
        assert ended["status"] in FINAL
        return ended

    async def refused(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, str]:
        """(status, text) of a request that has to fail by the client's fault: at once, or as its operation's failure (400)."""
        status, content = await self.call(method, path, body, **options)
        if status == 202:
            ended = await self.ended(content)
            assert ended["status"] == "Failure", ended
            return 400, ended["err"]
        assert 400 <= status < 500 or status == 501, content
        return status, content["error"]

    async def create(self, name: str, *, query: str = "", **fields: Any) -> None:
        """An instance with an empty root file system."""
        body = {"name": name, "source": {"type": "none"}, **fields}
        await self.do("POST", f"/1.0/instances{query}", body)

    async def set_state(self, name: str, action: str, **fields: Any) -> None:
        """Start it, stop it, …"""
        await self.do("PUT", f"/1.0/instances/{name}/state", {"action": action, "timeout": 5, **fields})

    async def etag(self, path: str) -> str:
        """The tag of an object."""
        async with self.session.get(path) as answer:
            return answer.headers["ETag"]

    async def events(self, query: str = "") -> aiohttp.ClientWebSocketResponse:
        """A websocket that hears events from now on."""
        socket = await self.session.ws_connect(f"/1.0/events{query}")
        await asyncio.sleep(0)
        return socket


@pytest.fixture
def state_dir() -> Any:
    """A folder with a short name: a unix socket's path may have 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="atoll-api."))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def sim_drivers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pools of driver `dir` and networks of type `bridge` are simulated."""
    monkeypatch.setitem(storage_drivers.REGISTRY._classes, "dir", Volumes)
    monkeypatch.setitem(network_drivers.REGISTRY._classes, "bridge", SimNetwork)


@pytest.fixture
async def bare(state_dir: Path, sim_drivers: None, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[App]:
    """A daemon with nothing in it."""
    running = App(state_dir)
    real = Listeners.authenticate

    def authenticate(self: Listeners, raw: web.Request) -> Caller:
        return running.caller or real(self, raw)

    def build(*args: Any) -> web.Application:
        running.application = real_build(*args)
        return running.application

    real_build = dispatch.build
    monkeypatch.setattr(dispatch, "build", build)
    monkeypatch.setattr(Listeners, "authenticate", authenticate)
    await running.start()
    try:
        yield running
    finally:
        await running.stop()


@pytest.fixture
async def app(bare: App) -> App:
    """A daemon with a pool, and a default profile that has a root disk on it."""
    await bare.do("POST", "/1.0/storage-pools", {"name": POOL, "driver": "dir"})
    root = {"type": "disk", "pool": POOL, "path": "/"}
    await bare.do("PUT", "/1.0/profiles/default", {"devices": {"root": root}})
    return bare
