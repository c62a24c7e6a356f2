"""The image routes in an application of their own: real database, real files, the `sim` storage driver, callers at will."""

from __future__ import annotations

import asyncio
import hashlib
import io
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, FormData, web
from aiohttp.test_utils import TestClient, TestServer
from mirror import Mirror

from atoll.api import dispatch
from atoll.api.routes.image_aliases import ImageAliasRoutes
from atoll.api.routes.images import ImageRoutes
from atoll.api.routes.operations import OperationRoutes
from atoll.db import schema
from atoll.db.engine import Database
from atoll.domain.caller import NOBODY, Caller, Protocol
from atoll.domain.paths import FOLDERS, Paths
from atoll.host import web as web_client
from atoll.services.events import EventHub, EventType, Listener
from atoll.services.images import ImageService, stream_cache
from atoll.services.images.aliases import ImageAliases
from atoll.services.images.jobs import ImageJobs, Publishable
from atoll.services.images.pull import ImagePuller
from atoll.services.images.push import ImageInbox, ImagePusher
from atoll.services.images.rules import ImageRules
from atoll.services.images.sources import ImageSources
from atoll.services.operations import OperationRegistry
from atoll.services.projects import ProjectService
from atoll.services.settings import SettingsService
from atoll.services.storage import StorageService
from atoll.services.warnings import WarningService

ADMIN = Caller(Protocol.UNIX, username="root", trusted=True)
METADATA = """\
architecture: x86_64
creation_date: 1700000000
properties: {os: Tiny, release: one}
templates:
  /etc/hostname: {when: [create], template: hostname.tpl}
"""


def tarball(files: Mapping[str, str | bytes | None], *, compression: str = "gz") -> bytes:
    """A tar archive of those files; None makes a folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{compression}") as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.mtime = 1700000000
            if content is None:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
                continue
            data = content.encode() if isinstance(content, str) else content
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def unified(*, serial: str | bytes = "1", metadata: str = METADATA, compression: str = "gz") -> bytes:
    """A small image; another `serial` makes another image."""
    files = {"metadata.yaml": metadata, "rootfs": None, "rootfs/serial": serial, "templates": None}
    return tarball({**files, "templates/hostname.tpl": "{{ container.name }}\n"}, compression=compression)


class World:
    """The application and what is behind it. `caller` is who the next request comes from."""

    def __init__(self, root: Path) -> None:
        self.paths = Paths(root)
        for name, mode in FOLDERS.items():
            (root / name).mkdir(mode=mode, exist_ok=True, parents=True)
        self.database = Database(self.paths.global_database)
        self.hub = EventHub()
        self.operations = OperationRegistry(self.hub)
        self.projects = ProjectService(self.database, self.hub, self.operations)
        self.storage = StorageService(self.database, self.hub, self.paths, WarningService(self.database, self.hub))
        self.images = ImageService(self.database, self.hub, self.paths, self.storage, self.projects)
        self.local_database = Database(self.paths.local_database)
        self.settings = SettingsService(self.database, self.local_database, self.hub)
        self.rules = ImageRules(self.projects, self.settings)
        self.puller = ImagePuller(self.images, ImageSources(self.paths.streams, "x86_64"), self.rules)
        self.jobs = ImageJobs(
            self.database, self.images, self.projects, self.operations,
            puller=self.puller, publish_source=self._publish_source,
        )  # fmt: skip
        self.listener: Listener = self.hub.listen(frozenset({EventType.LIFECYCLE}))
        self.caller = ADMIN
        self._has_settings = False
        self.client: TestClient[web.Request, web.Application]

    @asynccontextmanager
    async def _publish_source(self, project: str, name: str, snapshot: str) -> AsyncIterator[Publishable]:
        folder = self.paths.root / "source"
        (folder / "rootfs").mkdir(parents=True, exist_ok=True)
        (folder / "rootfs" / "name").write_text(f"{project}/{name}/{snapshot}")
        yield Publishable(METADATA.encode(), folder / "rootfs", folder)

    async def local_settings(self) -> None:
        """Open what the configuration is kept in."""
        self._has_settings = True
        await self.local_database.open()
        await schema.migrate(self.local_database, schema.LOCAL, patches=schema.PATCHES)
        await self.settings.load()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[World]:
        """Open, serve, close."""
        await self.database.open()
        await schema.migrate(self.database, schema.GLOBAL)
        inbox, pusher = ImageInbox(self.images, self.operations), ImagePusher(self.images, self.operations)
        groups = (
            ImageAliasRoutes(ImageAliases(self.database, self.hub, self.images)),
            ImageRoutes(self.images, self.jobs, inbox, pusher),
            OperationRoutes(self.operations, self.hub),
        )
        app = dispatch.build([route for group in groups for route in group.table()], lambda _: self.caller)
        self.client = TestClient(TestServer(app))
        await self.client.start_server()
        try:
            yield self
        finally:
            await self.client.close()
            await self.operations.drain(5)
            await self.database.close()
            if self._has_settings:
                await self.local_database.close()

    async def call(self, method: str, path: str, body: Any = None, **options: Any) -> ClientResponse:
        """A request with a JSON body."""
        return await self.client.request(method, path, json=body, **options)

    async def get(self, path: str, **options: Any) -> Any:
        """What a GET answers, which has to succeed."""
        answer = await self.client.get(path, **options)
        content = await answer.json()
        assert answer.status == 200, content
        return content["metadata"]

    async def upload(self, data: bytes | FormData, *, project: str = "default", **headers: str) -> dict[str, Any]:
        """Upload, wait, and return the operation as it ended."""
        named = {f"X-LXD-{key}": value for key, value in headers.items()}
        if isinstance(data, bytes):
            named["Content-Type"] = "application/octet-stream"
        answer = await self.client.post("/1.0/images", params={"project": project}, data=data, headers=named)
        return await self.ended(answer)

    async def ended(self, answer: ClientResponse) -> dict[str, Any]:
        """The operation that an answer speaks of, ended."""
        content = await answer.json()
        assert answer.status == 202, content
        operation = self.operations.find(content["metadata"]["id"])
        assert await operation.wait(60)
        return operation.wire()

    async def add(self, data: bytes, **headers: str) -> str:
        """The fingerprint of an image that is uploaded now."""
        ended = await self.upload(data, **headers)
        assert ended["err"] == "", ended
        fingerprint: str = ended["metadata"]["fingerprint"]
        return fingerprint

    def events(self) -> list[tuple[str, str]]:
        """(action, source) of all lifecycle events since the last call."""
        found = []
        while not self.listener._queue.empty():
            event = self.listener._queue.get_nowait()
            assert event is not None
            found.append((event.metadata["action"], event.metadata["source"]))
        return found

    async def until(self, count: int) -> None:
        """Wait until there are that many files and folders of images."""
        async with asyncio.timeout(30):
            while len(self.files()) != count:  # noqa: ASYNC110 - a folder tells nobody that it changed
                await asyncio.sleep(0.01)

    def files(self) -> list[str]:
        """What is in the images folder."""
        return sorted(path.name for path in self.paths.images.iterdir())


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path).running() as running:
        yield running


@pytest.fixture
def make_image() -> Callable[..., bytes]:
    return unified


@pytest.fixture
def make_tar() -> Callable[..., bytes]:
    return tarball


@pytest.fixture
def stranger() -> Caller:
    return NOBODY


@pytest.fixture
def restricted() -> Caller:
    return Caller(Protocol.TLS, username="r", trusted=True, restricted=True, projects=frozenset({"p1", "borrower"}))


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A root file system in a squashfs, of more than a megabyte."""
    if shutil.which("mksquashfs") is None:
        pytest.skip("squashfs-tools are not installed")
    folder = tmp_path_factory.mktemp("rootfs")
    (folder / "tree" / "etc").mkdir(parents=True)
    (folder / "tree" / "noise").write_bytes(b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(50_000)))
    subprocess.run(["mksquashfs", folder / "tree", folder / "out", "-quiet", "-no-progress", "-all-root"], check=True)
    return (folder / "out").read_bytes()


@pytest.fixture
def meta(make_tar: Any) -> bytes:
    text = "architecture: x86_64\ncreation_date: 1700000000\nproperties: {note: its maker's}\n"
    data: bytes = make_tar({"metadata.yaml": text}, compression="xz")
    return data


@pytest.fixture
async def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Mirror]:
    server, paced = Mirror(tmp_path), web_client.paced

    async def counted(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in paced(chunks):
            yield chunk
            server.taken += len(chunk)

    monkeypatch.setattr(web_client, "paced", counted)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fresh, and no pause between attempts."""
    monkeypatch.setattr(stream_cache, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr("atoll.services.images.fetch._PAUSE_SECONDS", 0.0)
