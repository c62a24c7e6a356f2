"""The daemon's parts and the order in which they start and stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from atoll.api import dispatch
from atoll.api.cors import Cors
from atoll.api.listeners import Listeners
from atoll.api.route import Route
from atoll.api.routes.backups import BackupRoutes
from atoll.api.routes.certificates import CertificateRoutes
from atoll.api.routes.host import HostRoutes
from atoll.api.routes.image_aliases import ImageAliasRoutes
from atoll.api.routes.images import ImageRoutes
from atoll.api.routes.instances import InstanceRoutes
from atoll.api.routes.internal import InternalRoutes
from atoll.api.routes.machines import MachineRoutes
from atoll.api.routes.networks import NetworkRoutes
from atoll.api.routes.openapi import OpenApiRoutes
from atoll.api.routes.operations import OperationRoutes
from atoll.api.routes.projects import ProfileRoutes, ProjectRoutes
from atoll.api.routes.server import ServerRoutes
from atoll.api.routes.snapshots import SnapshotRoutes
from atoll.api.routes.storage import StorageRoutes
from atoll.api.routes.volumes import VolumeRoutes
from atoll.api.routes.warnings import WarningRoutes
from atoll.db import schema
from atoll.db.engine import Database
from atoll.domain.caller import DAEMON
from atoll.domain.paths import Paths
from atoll.drivers import instance as instance_drivers
from atoll.drivers.device import nic_filters
from atoll.drivers.instance.contract import DriverInfo, InstanceDriver
from atoll.host import facts, pki
from atoll.host.threads import in_thread
from atoll.host.tls import ServerTls
from atoll.host.x509 import ServerFiles
from atoll.services.certificates import CertificateService
from atoll.services.daemon_storage import DaemonStorage
from atoll.services.events import EventHub, LogForwarder
from atoll.services.images.aliases import ImageAliases
from atoll.services.images.jobs import ImageJobs
from atoll.services.images.service import ImageService
from atoll.services.instances.backups import BackupService
from atoll.services.instances.core import HostFacts, InstanceCore
from atoll.services.instances.create import InstanceCreator
from atoll.services.instances.devices import DeviceService
from atoll.services.instances.exec import ExecService
from atoll.services.instances.lifecycle import InstanceLifecycle
from atoll.services.instances.logs import LogService
from atoll.services.instances.publish import PublishSources
from atoll.services.instances.query import InstanceQuery
from atoll.services.instances.snapshots import SnapshotService
from atoll.services.instances.state import InstanceRunner
from atoll.services.instances.update import InstanceUpdater
from atoll.services.networks import NetworkService
from atoll.services.operations import OperationRegistry
from atoll.services.profiles import ProfileService
from atoll.services.projects import ProjectService
from atoll.services.proxies import Proxies
from atoll.services.server import ServerInfo, StorageInfo
from atoll.services.settings import SettingsService
from atoll.services.sql import SqlService
from atoll.services.storage import StorageService
from atoll.services.trust import TrustStore
from atoll.services.trust_tokens import TrustTokens
from atoll.services.volumes import VolumeService
from atoll.services.warnings import WarningService
from atoll.version import ATOLL_VERSION

log = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Instances:
    """The use cases of instances."""

    core: InstanceCore
    devices: DeviceService
    creator: InstanceCreator
    runner: InstanceRunner
    updater: InstanceUpdater
    snapshots: SnapshotService
    backups: BackupService
    query: InstanceQuery
    lifecycle: InstanceLifecycle


class Daemon:
    """One daemon on one state directory. `end` is set when it shall stop."""

    def __init__(self, paths: Paths, *, driver: str = "lxc") -> None:
        self.paths = paths
        self.end = asyncio.Event()
        self.ready = False
        self.global_db = Database(paths.global_database)
        self.local_db = Database(paths.local_database)
        self.hub = EventHub()
        self.operations = OperationRegistry(self.hub)
        self.driver: InstanceDriver = instance_drivers.REGISTRY.create(driver, paths.root)
        self.settings = SettingsService(self.global_db, self.local_db, self.hub)
        self.warnings = WarningService(self.global_db, self.hub)
        self.projects = ProjectService(self.global_db, self.hub, self.operations)
        self.storage = StorageService(self.global_db, self.hub, paths, self.warnings)
        self.volumes = VolumeService(self.global_db, self.hub, self.storage)
        self.daemon_storage = DaemonStorage(paths, self.settings, self.storage, self.volumes)
        self.volumes.of_daemon = self.daemon_storage.volumes_in_use
        self.networks = NetworkService(self.global_db, self.hub, paths, self.warnings)
        self.images = ImageService(self.global_db, self.hub, paths, self.storage, self.projects)
        self.tls = ServerTls(ServerFiles(*paths.server_certificate))
        self.instances = self._make_instances()
        self._stop_steps: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        self._background: set[asyncio.Task[None]] = set()

    def _make_instances(self) -> Instances:
        host = HostFacts(facts.lent_ids(), facts.memory_total(), facts.cpus(), facts.architecture())
        core = InstanceCore(
            database=self.global_db,
            hub=self.hub,
            paths=self.paths,
            driver=self.driver,
            storage=self.storage,
            facts=host,
        )
        devices = DeviceService(core, self.networks, self.volumes)
        creator = InstanceCreator(core, devices, self.images, self.networks, self.operations)

        async def delete_held(project: str, name: str) -> None:
            await creator.delete_held(project, name, caller=DAEMON)

        runner = InstanceRunner(core, devices, self.operations, delete_held)
        return Instances(
            core=core,
            devices=devices,
            creator=creator,
            runner=runner,
            updater=InstanceUpdater(core, devices, runner, self.networks, self.operations),
            snapshots=SnapshotService(core, runner, self.operations),
            backups=BackupService(core, self.operations),
            query=InstanceQuery(core),
            lifecycle=InstanceLifecycle(core, runner, devices, self.warnings),
        )

    # --- start ---------------------------------------------------------------------------------------------------------

    async def start(self, *, group: str) -> None:
        """Bring everything up; when it returns, the API answers and what was half done is repaired."""
        await self._open_databases()
        await self.tls.open()
        logging.getLogger().addHandler(LogForwarder(self.hub, asyncio.get_running_loop()))
        info = await self.driver.open(self.instances.runner.on_event)
        self._on_stop("instance driver", self.driver.close)
        store = TrustStore(self.settings, await in_thread(pki.load, self.paths.root))
        tokens = TrustTokens(self.operations, self.settings, self.tls)
        certificates = CertificateService(self.global_db, self.hub, self.settings, store, tokens)
        listeners = Listeners(self.paths, self.settings, self.tls, store)
        await self.settings.load()
        Proxies(self.settings)
        await certificates.start()
        self._on_stop("certificates", certificates.stop)
        await self._repair()
        routes = await self._routes(info, certificates, listeners)
        app = dispatch.build(routes, listeners.authenticate)
        Cors(self.settings).install(app)
        await listeners.start(app, group=group)
        self._on_stop("operations", self._drain)
        self._on_stop("listeners", listeners.stop)
        self.ready = True
        log.info("Atoll %s is ready in %s", ATOLL_VERSION, self.paths.root)
        self._in_background(self.instances.lifecycle.autostart(), "autostart")
        self._in_background(self.instances.backups.expire(), "expiry of backups")
        self._in_background(self.instances.lifecycle.guard(), "guard")

    async def _open_databases(self) -> None:
        await self.global_db.open()
        self._on_stop("global database", self.global_db.close)
        await self.local_db.open()
        self._on_stop("local database", self.local_db.close)
        await schema.migrate(self.global_db, schema.GLOBAL)
        await schema.migrate(self.local_db, schema.LOCAL, patches=schema.PATCHES)

    async def _repair(self) -> None:
        """What a kill left, in the order of what stands on what."""
        await self.storage.start()
        self._on_stop("storage", self.storage.stop)
        await self.daemon_storage.start()
        await self.instances.lifecycle.adopt()
        repaired = [
            *await nic_filters.sweep(),
            *await self.instances.updater.repair(),
            *await self.instances.creator.repair(),
            *await self.instances.snapshots.repair(),
            *await self.instances.backups.repair(),
            *await self.volumes.repair(),
            *await self.images.repair(),
        ]
        for sentence in repaired:
            log.warning("Repaired: %s", sentence)
        listed = await self.instances.core.load_all(None)
        await self.networks.start([(loaded.record, loaded.expanded) for loaded in listed])
        self._on_stop("networks", self.networks.stop)

    async def _routes(self, info: DriverInfo, certificates: CertificateService, listeners: Listeners) -> list[Route]:
        server = ServerInfo(
            self.settings,
            self.tls,
            instance_driver=info,
            storage_drivers=[StorageInfo(name, "1") for name in await self.storage.supported()],
            active_storage=self.storage.active_drivers,
        )
        parts = self.instances
        exec_ = ExecService(parts.core, self.operations)
        profiles = ProfileService(self.global_db, self.hub, self.projects, parts.devices, parts.updater)
        jobs = ImageJobs(
            self.global_db,
            self.images,
            self.projects,
            self.operations,
            publish_source=PublishSources(parts.core).open,
        )
        sql = SqlService(local=self.local_db, shared=self.global_db)
        groups = (
            ServerRoutes(self.settings, server),
            CertificateRoutes(certificates, server, listeners.certificate),
            InstanceRoutes(parts.query, parts.creator, parts.updater, parts.snapshots, self.images),
            MachineRoutes(parts.query, parts.runner, exec_, LogService(parts.core)),
            SnapshotRoutes(parts.core, parts.snapshots),
            BackupRoutes(parts.backups),
            ImageAliasRoutes(ImageAliases(self.global_db, self.hub, self.images)),
            ImageRoutes(self.images, jobs),
            ProfileRoutes(profiles),
            ProjectRoutes(self.projects),
            NetworkRoutes(self.networks),
            StorageRoutes(self.storage),
            VolumeRoutes(self.volumes, self.operations),
            OperationRoutes(self.operations, self.hub),
            WarningRoutes(self.warnings),
            HostRoutes(),
            InternalRoutes(sql, lambda: self.ready, self.shut_down),
        )
        routes = [route for group in groups for route in group.table()]
        return [*routes, *OpenApiRoutes(routes).table()]

    # --- stop ----------------------------------------------------------------------------------------------------------

    async def shut_down(self, force: bool, timeout: float) -> None:
        """Stop all instances, in at most that many seconds, then let the daemon end."""
        try:
            async with asyncio.timeout(timeout if timeout > 0 else None):
                await self.instances.lifecycle.stop_all(force=force)
        except TimeoutError:
            await self.instances.lifecycle.stop_all(force=True)
        asyncio.get_running_loop().call_later(0.05, self.end.set)

    def host_goes_down(self) -> None:
        """SIGPWR, LXD's word for it."""
        self._in_background(self.shut_down(False, 0), "host shutdown")

    async def stop(self) -> None:
        """End what `start` began, as far as it came, in reverse. Instances and networks go on."""
        self.ready = False
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        while self._stop_steps:
            what, step = self._stop_steps.pop()
            try:
                await step()
            except Exception:  # the next part has to be stopped whatever happened to this one
                log.exception("Stopping %s failed", what)

    async def _drain(self) -> None:
        await self.operations.drain(DRAIN_SECONDS)
        await self.instances.runner.settle()

    def _on_stop(self, what: str, step: Callable[[], Awaitable[None]]) -> None:
        self._stop_steps.append((what, step))

    def _in_background(self, work: Awaitable[None], name: str) -> None:
        task = asyncio.ensure_future(work)
        task.add_done_callback(self._background.discard)
        self._background.add(task)
        log.debug("Started %s", name)
