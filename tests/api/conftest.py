"""The whole daemon in this process: real API, services and database on a folder of its own; instances, volumes and networks of
the `sim` drivers, so that nothing of the host changes. Requests go over its unix socket.

Beside it the part of the daemon that strangers reach, alone: settings, trust store and listeners, with clients by TLS too.
"""

from __future__ import annotations

import asyncio
import base64
import io
import ipaddress
import itertools
import json
import shutil
import socket
import ssl
import sys
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from atoll.api import dispatch
from atoll.api.cors import Cors
from atoll.api.listeners import HTTPS_ADDRESS, Listeners
from atoll.api.routes.certificates import CertificateRoutes
from atoll.api.routes.server import ServerRoutes
from atoll.db import projects, schema
from atoll.db.engine import Database
from atoll.domain.caller import DAEMON, Caller
from atoll.domain.idmap import IdMap
from atoll.domain.paths import Paths
from atoll.drivers import network as network_drivers
from atoll.drivers import storage as storage_drivers
from atoll.drivers.instance.contract import DriverInfo
from atoll.drivers.network.sim import SimNetwork
from atoll.drivers.storage.contract import Mounted, VolumeId
from atoll.drivers.storage.sim import SimStorage
from atoll.host import facts, folders, pki
from atoll.host import x509 as host_x509
from atoll.host.tls import ServerTls
from atoll.host.x509 import ServerFiles
from atoll.runtime.assembly import Daemon
from atoll.services import operations
from atoll.services.certificates import CertificateService
from atoll.services.events import EventHub, EventType
from atoll.services.operations import OperationRegistry
from atoll.services.server import ServerInfo, StorageInfo
from atoll.services.settings import SettingsService
from atoll.services.trust import TrustStore
from atoll.services.trust_tokens import TrustTokens

# What tests here and in images/ share and import by name.
sys.path[:0] = [str(Path(__file__).parent / "images"), str(Path(__file__).parent)]

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


def tiny_image(description: str = "tiny") -> bytes:
    """A unified image that holds hardly anything."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        text = f"architecture: {facts.architecture()}\ncreation_date: 1\nproperties:\n  description: {description}\n".encode()
        entry = tarfile.TarInfo("metadata.yaml")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
        folder = tarfile.TarInfo("rootfs")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(folder)
    return out.getvalue()


@pytest.fixture(autouse=True)
def kept_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test may ask for an operation long after its end."""
    monkeypatch.setattr(operations, "KEEP_SECONDS", 300.0)


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


@dataclass(frozen=True, slots=True)
class Authority:
    """Who signs certificates of clients."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its key: their PEM files, and the certificate's DER."""

    certificate: Path
    key: Path
    der: bytes

    @property
    def base64(self) -> str:
        """As `lxc` sends it."""
        return base64.b64encode(self.der).decode()

    @property
    def fingerprint(self) -> str:
        """By which the trust store knows it."""
        return host_x509.fingerprint(self.der)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `body` is the envelope; {} where the answer has no content."""

    status: int
    headers: Mapping[str, str]
    body: Mapping[str, Any]

    @property
    def metadata(self) -> Any:
        """The object in the envelope."""
        return self.body["metadata"]

    @property
    def error(self) -> str:
        """The error's text, "" if there was none."""
        text: str = self.body["error"]
        return text


class Client:
    """Sends requests, one after the other over one connection as long as that is kept open."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """A request; `If_Match="…"` is the header If-Match."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self._session.request(method, path, json=body, headers=named) as answer:
            content = await answer.read()
            return Answer(answer.status, answer.headers, json.loads(content) if content else {})


class Server:
    """Settings, trust store and listeners with their routes, made and started as the daemon does.

    `pools` are the drivers of the storage pools that there seem to be, `events` the lifecycle events since the start.
    """

    def __init__(self, root: Path) -> None:
        self.paths = Paths(root)
        self.global_db = Database(self.paths.global_database)
        self.local_db = Database(self.paths.local_database)
        self.hub = EventHub()
        self.events = self.hub.listen(frozenset({EventType.LIFECYCLE}))
        self.operations = OperationRegistry(self.hub)
        self.settings = SettingsService(self.global_db, self.local_db, self.hub)
        self.tls = ServerTls(ServerFiles(*self.paths.server_certificate))
        self.pools = ["dir"]
        self.certificates: CertificateService
        self.listeners: Listeners
        self._clients = AsyncExitStack()
        self._parts = AsyncExitStack()

    async def start(self) -> None:
        """Listen on the unix socket; `listen` opens HTTPS."""
        folders.make_state(self.paths)
        for database in (self.global_db, self.local_db):
            await database.open()
            self._parts.push_async_callback(database.close)
        await schema.migrate(self.global_db, schema.GLOBAL)
        await schema.migrate(self.local_db, schema.LOCAL, patches=schema.PATCHES)
        await self.tls.open()
        store = TrustStore(self.settings, pki.AuthorityFiles.of(self.paths.root))
        await store.open()
        tokens = TrustTokens(self.operations, self.settings, self.tls)
        self.certificates = CertificateService(self.global_db, self.hub, self.settings, store, tokens)
        self.listeners = Listeners(self.paths, self.settings, self.tls, store)
        await self.settings.load()
        await self.certificates.start()
        self._parts.push_async_callback(self.certificates.stop)
        self._parts.push_async_callback(self.operations.drain, 5)
        await self.listeners.start(self._application(), group="root")
        self._parts.push_async_callback(self.listeners.stop)

    def _application(self) -> web.Application:
        info = ServerInfo(
            self.settings,
            self.tls,
            instance_driver=DriverInfo("lxc", "5.0.2", {"pidfd": "true"}),
            storage_drivers=[StorageInfo("dir", "1"), StorageInfo("overlay", "1")],
            active_storage=lambda: self.pools,
        )
        groups = (ServerRoutes(self.settings, info), CertificateRoutes(self.certificates, info, self.listeners.certificate))
        application = dispatch.build([route for group in groups for route in group.table()], self.listeners.authenticate)
        Cors(self.settings).install(application)
        return application

    async def stop(self) -> None:
        """All of it, and the clients."""
        await self._clients.aclose()
        await self._parts.aclose()

    async def listen(self) -> str:
        """Open the HTTPS listener on a free port of loopback; returns `host:port`."""
        with socket.create_server(("127.0.0.1", 0)) as sock:
            address = f"127.0.0.1:{sock.getsockname()[1]}"
        await self.settings.patch({HTTPS_ADDRESS: address}, caller=DAEMON)
        return address

    async def unix(self) -> Client:
        """A new client on the unix socket."""
        return await self._client("http://atoll", aiohttp.UnixConnector(str(self.paths.socket)))

    async def https(self, identity: Identity | None = None, *, version: ssl.TLSVersion | None = None) -> Client:
        """A new client of the address now listened on, with that certificate, by that version of TLS only."""
        connector = aiohttp.TCPConnector(ssl=self._context(identity, version))
        return await self._client(f"https://{self.settings.text(HTTPS_ADDRESS)}", connector)

    def _context(self, identity: Identity | None, version: ssl.TLSVersion | None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.tls.certificate)
        if version is not None:
            context.set_ciphers("DEFAULT@SECLEVEL=0")  # whatever the version: to refuse it is the server's part
            context.minimum_version = context.maximum_version = version
        if identity is not None:
            context.load_cert_chain(identity.certificate, identity.key)
        return context

    async def _client(self, url: str, connector: aiohttp.BaseConnector) -> Client:
        return Client(await self._clients.enter_async_context(aiohttp.ClientSession(url, connector=connector)))

    async def make_project(self, name: str) -> None:
        """A project, of which no event tells."""
        async with self.global_db.write() as tx:
            await projects.create(tx, name, "", {})

    async def actions(self) -> list[tuple[str, str]]:
        """(action, source) of the events not read yet."""
        self.events.close()  # marks the end of what is there; the hub goes on to tell it
        found = []
        while (event := await self.events.next()) is not None:
            found.append((event.metadata["action"], event.metadata["source"]))
        return found


def issue(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    *,
    days: tuple[float, float],
    signer: Authority | None,
    hosts: Sequence[str] = (),
    ca: bool = False,
) -> x509.Certificate:
    """A certificate of that key, signed by itself if by nobody else, which holds from and until so many days from now."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begin, end = (datetime.now(UTC) + timedelta(days=each) for each in days)
    alternatives = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host)) for host in hosts])
    builder = x509.CertificateBuilder().add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    builder = builder.add_extension(alternatives, critical=False) if hosts else builder
    return (
        builder.subject_name(subject)
        .issuer_name(subject if signer is None else signer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .sign(key if signer is None else signer.key, hashes.SHA384())
    )


@pytest.fixture
def make_certificate(state_dir: Path) -> Callable[..., Identity]:
    """Makes identities of clients. Their files can be moved into the server's place: they are on its file system."""
    names = (state_dir / f"identity-{number}" for number in itertools.count())

    def make(
        *,
        name: str = "client",
        days: tuple[float, float] = (-1, 30),
        signer: Authority | None = None,
        hosts: Sequence[str] = (),
    ) -> Identity:
        key = ec.generate_private_key(ec.SECP384R1())
        certificate = issue(name, key, days=days, signer=signer, hosts=hosts)
        stem = next(names)
        made = Identity(stem.with_suffix(".crt"), stem.with_suffix(".key"), certificate.public_bytes(serialization.Encoding.DER))
        made.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        made.key.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return made

    return make


@pytest.fixture
def authority(state_dir: Path) -> Authority:
    """The authority of the server that is made after it."""
    key = ec.generate_private_key(ec.SECP384R1())
    made = Authority(issue("authority", key, days=(-1, 30), signer=None, ca=True), key)
    (state_dir / "server.ca").write_bytes(made.certificate.public_bytes(serialization.Encoding.PEM))
    return made


@pytest.fixture
def make_server(state_dir: Path) -> Callable[[], Server]:
    """Makes a server that is not started yet, so that any loop can run it. Who starts it stops it."""
    return lambda: Server(state_dir)


@pytest.fixture
async def server(make_server: Callable[[], Server]) -> AsyncIterator[Server]:
    """A server that listens on its unix socket."""
    running = make_server()
    try:
        await running.start()
        yield running
    finally:
        await running.stop()
