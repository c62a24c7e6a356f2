"""The daemon's parts and the order in which they start and stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from atoll.api import dispatch
from atoll.api.cors import Cors
from atoll.api.guest.app import GuestApi
from atoll.api.guest.door import GuestDoor
from atoll.api.listeners import Listeners
from atoll.api.route import Route
from atoll.api.routes.backups import BackupRoutes
from atoll.api.routes.certificates import CertificateRoutes
from atoll.api.routes.console import ConsoleRoutes
from atoll.api.routes.files import FileRoutes
from atoll.api.routes.host import HostRoutes
from atoll.api.routes.image_aliases import ImageAliasRoutes
from atoll.api.routes.images import ImageRoutes
from atoll.api.routes.instance_copies import InstanceCopies
from atoll.api.routes.instance_metadata import InstanceMetadataRoutes
from atoll.api.routes.instance_migrations import InstanceMigrations
from atoll.api.routes.instances import InstanceRoutes
from atoll.api.routes.internal import InternalRoutes
from atoll.api.routes.machines import MachineRoutes
from atoll.api.routes.metrics import MetricsRoutes, served_apart
from atoll.api.routes.networks import NetworkRoutes
from atoll.api.routes.openapi import OpenApiRoutes
from atoll.api.routes.operations import OperationRoutes
from atoll.api.routes.projects import ProfileRoutes, ProjectRoutes
from atoll.api.routes.recover import RecoverRoutes
from atoll.api.routes.server import ServerRoutes
from atoll.api.routes.snapshots import SnapshotRoutes
from atoll.api.routes.storage import StorageRoutes
from atoll.api.routes.volume_backups import VolumeBackupRoutes
from atoll.api.routes.volume_migrations import VolumeMigrations
from atoll.api.routes.volume_snapshots import VolumeSnapshotRoutes
from atoll.api.routes.volumes import VolumeRoutes
from atoll.api.routes.wait import WaitRoutes
from atoll.api.routes.warnings import WarningRoutes
from atoll.db import schema
from atoll.db.engine import Database
from atoll.domain.caller import DAEMON
from atoll.domain.paths import Paths
from atoll.drivers import instance as instance_drivers
from atoll.drivers.device import nic_filters
from atoll.drivers.instance.contract import DriverInfo, InstanceDriver
from atoll.host import cgroup, facts, pki
from atoll.host.tls import ServerTls
from atoll.host.x509 import ServerFiles
from atoll.services.certificates import CertificateService
from atoll.services.daemon_storage import DaemonStorage
from atoll.services.events import EventHub, LogForwarder
from atoll.services.guest.events import GuestEvents
from atoll.services.guest.service import GuestService
from atoll.services.images.aliases import ImageAliases
from atoll.services.images.jobs import ImageJobs
from atoll.services.images.pull import ImagePuller
from atoll.services.images.push import ImageInbox, ImagePusher
from atoll.services.images.rules import ImageRules
from atoll.services.images.service import ImageService
from atoll.services.images.sources import ImageSources
from atoll.services.images.upkeep import ImageUpkeep
from atoll.services.instances.backup_import import BackupImporter
from atoll.services.instances.backup_yaml import BackupYaml
from atoll.services.instances.backups import BackupService
from atoll.services.instances.console import ConsoleService
from atoll.services.instances.copy import InstanceCopier
from atoll.services.instances.core import HostFacts, InstanceCore
from atoll.services.instances.cpu_balance import CpuBalancer
from atoll.services.instances.create import InstanceCreator
from atoll.services.instances.devices import DeviceService
from atoll.services.instances.exec import ExecService
from atoll.services.instances.files import FileService
from atoll.services.instances.lifecycle import InstanceLifecycle
from atoll.services.instances.logs import LogService
from atoll.services.instances.metadata import MetadataService
from atoll.services.instances.move import InstanceMover
from atoll.services.instances.profile_change import ProfileChanger
from atoll.services.instances.publish import PublishSources
from atoll.services.instances.query import InstanceQuery
from atoll.services.instances.recover import RecoverService
from atoll.services.instances.refresh import InstanceRefresher
from atoll.services.instances.snapshot_restore import SnapshotRestore
from atoll.services.instances.snapshot_tasks import SnapshotTasks
from atoll.services.instances.snapshots import SnapshotService
from atoll.services.instances.state import InstanceRunner
from atoll.services.instances.update import InstanceUpdater
from atoll.services.instances.wait import WaitService
from atoll.services.migration.by_blocks import ByBlocks
from atoll.services.migration.by_layers import ByLayers
from atoll.services.migration.by_rsync import ByRsync
from atoll.services.migration.by_subvolumes import BySubvolumes
from atoll.services.migration.source import MigrationSource
from atoll.services.migration.target import MigrationTarget
from atoll.services.migration.transport import Ways
from atoll.services.migration.volume_source import VolumeMigrationSource
from atoll.services.migration.volume_target import VolumeMigrationTarget
from atoll.services.networks import NetworkService
from atoll.services.operations import OperationRegistry
from atoll.services.pool_watch import PoolWatch
from atoll.services.profiles import ProfileService
from atoll.services.projects import ProjectService
from atoll.services.proxies import Proxies
from atoll.services.scheduler import Scheduler
from atoll.services.server import ServerInfo, StorageInfo
from atoll.services.settings import SettingsService
from atoll.services.sql import SqlService
from atoll.services.storage import StorageService
from atoll.services.trust import TrustStore
from atoll.services.trust_tokens import TrustTokens
from atoll.services.volume_backup_import import VolumeImporter
from atoll.services.volume_backups import VolumeBackups
from atoll.services.volume_copy import VolumeCopier
from atoll.services.volume_move import VolumeMover
from atoll.services.volume_settings import VolumeSettings
from atoll.services.volume_snapshot_tasks import VolumeSnapshotTasks
from atoll.services.volume_snapshots import VolumeSnapshots
from atoll.services.volume_uploads import VolumeUploads
from atoll.services.volume_users import VolumeUsers
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
    copier: InstanceCopier
    refresher: InstanceRefresher
    mover: InstanceMover
    runner: InstanceRunner
    updater: InstanceUpdater
    snapshots: SnapshotService
    snapshot_tasks: SnapshotTasks
    backups: BackupService
    query: InstanceQuery
    lifecycle: InstanceLifecycle


@dataclass(frozen=True, slots=True)
class Volumes:
    """The use cases of custom volumes that are more than `VolumeService`."""

    copier: VolumeCopier
    mover: VolumeMover
    backups: VolumeBackups
    uploads: VolumeUploads
    snapshots: VolumeSnapshots
    settings: VolumeSettings


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
        self.image_rules = ImageRules(self.projects, self.settings)
        self.puller = ImagePuller(self.images, ImageSources(paths.streams, facts.architecture()), self.image_rules)
        self.tls = ServerTls(ServerFiles(*paths.server_certificate))
        self.guests = GuestEvents()
        self.instances = self._make_instances()
        self.custom_volumes = self._make_volumes()
        self._stop_steps: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        self._background: set[asyncio.Task[None]] = set()

    def _make_instances(self) -> Instances:
        host = HostFacts(
            facts.lent_ids(),
            facts.memory_total(),
            facts.cpus(),
            facts.architecture(),
            unprivileged_only=facts.unprivileged_only(),
        )
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

        layout = cgroup.detect()
        balancer = CpuBalancer(self.driver, lambda: cgroup.usable_cpus(layout))
        runner = InstanceRunner(core, devices, self.operations, delete_held, balancer)
        snapshots = SnapshotService(core, SnapshotRestore(core, runner, self.networks), self.operations)
        tasks = SnapshotTasks(core, snapshots, self.operations, self.warnings)
        runner.before_start = tasks.take_at_start
        return Instances(
            core=core,
            devices=devices,
            creator=creator,
            copier=InstanceCopier(core, creator),
            refresher=InstanceRefresher(core, self.operations),
            mover=InstanceMover(core, devices, self.networks, self.operations),
            runner=runner,
            updater=InstanceUpdater(core, devices, runner, self.networks, self.operations, self.guests),
            snapshots=snapshots,
            snapshot_tasks=tasks,
            backups=BackupService(core, self.operations),
            query=InstanceQuery(core),
            lifecycle=InstanceLifecycle(core, runner, devices, self.warnings),
        )

    def _make_volumes(self) -> Volumes:
        database, storage, volumes, operations = self.global_db, self.storage, self.volumes, self.operations
        users = VolumeUsers(self.instances.core)
        copier = VolumeCopier(database, storage, volumes, users, operations)
        backups = VolumeBackups(database, self.paths, storage, volumes, copier, operations)
        volumes.before_forgetting = backups.remove_all
        importer = VolumeImporter(database, self.paths, storage, volumes, operations)
        return Volumes(
            copier=copier,
            mover=VolumeMover(database, storage, volumes, users, copier, backups, operations),
            backups=backups,
            uploads=VolumeUploads(database, self.paths, storage, volumes, importer, operations),
            snapshots=VolumeSnapshots(database, storage, volumes, users),
            settings=VolumeSettings(database, volumes, users),
        )

    # --- start ---------------------------------------------------------------------------------------------------------

    async def start(self, *, group: str) -> None:
        """Bring everything up; when it returns, the API answers and what was half done is repaired."""
        await self._open_databases()
        await self.tls.open()
        logging.getLogger().addHandler(LogForwarder(self.hub, asyncio.get_running_loop()))
        info = await self.driver.open(self.instances.runner.on_event)
        self._on_stop("instance driver", self.driver.close)
        store = TrustStore(self.settings, pki.AuthorityFiles.of(self.paths.root))
        await store.open()
        tokens = TrustTokens(self.operations, self.settings, self.tls)
        certificates = CertificateService(self.global_db, self.hub, self.settings, store, tokens)
        listeners = Listeners(self.paths, self.settings, self.tls, store)
        await self.settings.load()
        Proxies(self.settings)
        await certificates.start()
        self._on_stop("certificates", certificates.stop)
        await self._repair()
        descriptions = BackupYaml(self.instances.core)
        descriptions.start()
        self._on_stop("descriptions of instances", descriptions.stop)
        routes = await self._routes(info, certificates, listeners)
        apart = dispatch.build(served_apart(routes), listeners.authenticate)
        app = dispatch.build(routes, listeners.authenticate)
        Cors(self.settings).install(app)
        await listeners.start(app, group=group, metrics=apart)
        self._on_stop("operations", self._drain)
        self._on_stop("listeners", listeners.stop)
        await self._listen_to_guests()
        log.info("Atoll %s is ready in %s", ATOLL_VERSION, self.paths.root)
        self._in_background(self._autostart(), "autostart")
        self._in_background(self._make_scheduler().run(), "scheduler")
        self._in_background(self.instances.lifecycle.guard(), "guard")

    async def _listen_to_guests(self) -> None:
        guest = GuestService(self.instances.core, self.images)
        door = GuestDoor(self.paths.devlxd_socket, guest.identify)
        await door.start(GuestApi(guest, self.guests, door.caller).build())
        self._on_stop("guest API", door.stop)
        self._on_stop("events of guests", self.guests.close)

    def _make_scheduler(self) -> Scheduler:
        """What the daemon does each minute."""
        scheduler = Scheduler()
        volumes = VolumeSnapshotTasks(self.global_db, self.volumes, self.custom_volumes.snapshots, self.operations)
        scheduler.add("Expiry of snapshots", self.instances.snapshot_tasks.expire)
        scheduler.add("Expiry of volume snapshots", volumes.expire)
        scheduler.add("Expiry of backups", self.instances.backups.expire)
        scheduler.add("Expiry of volume backups", self.custom_volumes.backups.expire)
        upkeep = ImageUpkeep(self.global_db, self.images, self.puller, self.operations, self.settings, self.image_rules)
        scheduler.add("Upkeep of images", upkeep.tick)
        scheduler.add("Storage pools that are away", self._watch_pools().tick)
        scheduler.add("Scheduled snapshots", self.instances.snapshot_tasks.take)
        scheduler.add("Scheduled volume snapshots", volumes.take)
        return scheduler

    def _watch_pools(self) -> PoolWatch:
        """Repairs a pool that is back as `_repair` does it with all at the start."""
        instances, custom = self.instances, self.custom_volumes
        repairs = (
            self.daemon_storage.repair,
            *(each.repair for each in (instances.updater, instances.mover, instances.creator, instances.snapshots)),
            *(each.repair for each in (custom.mover, self.volumes, custom.snapshots)),
        )
        return PoolWatch(self.storage, repairs, instances.lifecycle.autostart)

    async def _autostart(self) -> None:
        """Start the instances that should run. Only then does `waitready` return, as LXD's does; the API answers before."""
        try:
            await self.instances.lifecycle.autostart()
        except Exception:  # whatever went wrong with instances, the daemon itself is up
            log.exception("Starting instances failed")
        self.ready = True

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
            *await self.instances.mover.repair(),
            *await self.instances.refresher.repair(),
            *await self.instances.creator.repair(),
            *await self.instances.snapshots.repair(),
            *await self.instances.backups.repair(),
            *await self.custom_volumes.mover.repair(),
            *await self.custom_volumes.copier.repair(),
            *await self.volumes.repair(),
            *await self.custom_volumes.snapshots.repair(),
            *await self.custom_volumes.backups.repair(),
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
        parts, custom = self.instances, self.custom_volumes
        exec_ = ExecService(parts.core, self.operations)
        changer = ProfileChanger(parts.core, parts.updater, self.networks, self.guests)
        profiles = ProfileService(self.global_db, self.hub, self.projects, parts.devices, changer)
        jobs = ImageJobs(
            self.global_db,
            self.images,
            self.projects,
            self.operations,
            puller=self.puller,
            publish_source=PublishSources(parts.core).open,
        )
        sql = SqlService(local=self.local_db, shared=self.global_db)
        copies = InstanceCopies(parts.copier, parts.refresher, parts.mover)
        importer = BackupImporter(parts.core, parts.devices, parts.creator)
        rsync = ByRsync(parts.core.storage, parts.core.paths)
        ways = Ways([BySubvolumes(), ByLayers(self.images, rsync), ByBlocks(self.storage), rsync])
        migrations = InstanceMigrations(
            MigrationSource(parts.core, ways, self.operations),
            MigrationTarget(parts.core, ways, parts.devices, parts.creator, parts.refresher, self.operations),
        )
        users = VolumeUsers(parts.core)
        volume_migrations = VolumeMigrations(
            VolumeMigrationSource(self.storage, self.volumes, custom.copier, ways, self.operations),
            VolumeMigrationTarget(self.storage, self.volumes, users, custom.copier, ways, self.operations),
        )
        groups = (
            ServerRoutes(self.settings, server),
            CertificateRoutes(certificates, server, listeners.certificate),
            InstanceRoutes(
                parts.query,
                parts.creator,
                parts.updater,
                parts.snapshots,
                self.images,
                copies,
                importer,
                self.puller,
                migrations,
            ),
            MachineRoutes(parts.query, parts.runner, exec_, LogService(parts.core)),
            ConsoleRoutes(ConsoleService(parts.core, self.operations)),
            WaitRoutes(WaitService(parts.core, self.operations)),
            SnapshotRoutes(parts.core, parts.snapshots, migrations),
            BackupRoutes(parts.backups),
            RecoverRoutes(RecoverService(parts.core, parts.devices, parts.creator)),
            FileRoutes(FileService(parts.core)),
            InstanceMetadataRoutes(MetadataService(parts.core)),
            ImageAliasRoutes(ImageAliases(self.global_db, self.hub, self.images)),
            ImageRoutes(self.images, jobs, ImageInbox(self.images, self.operations), ImagePusher(self.images, self.operations)),
            ProfileRoutes(profiles),
            ProjectRoutes(self.projects),
            NetworkRoutes(self.networks),
            StorageRoutes(self.storage),
            VolumeRoutes(
                self.volumes,
                custom.copier,
                custom.mover,
                custom.uploads,
                custom.snapshots,
                custom.settings,
                volume_migrations,
            ),
            VolumeSnapshotRoutes(self.volumes, custom.snapshots, volume_migrations, self.operations),
            VolumeBackupRoutes(self.volumes, custom.backups),
            OperationRoutes(self.operations, self.hub),
            WarningRoutes(self.warnings),
            MetricsRoutes(parts.core, self.settings),
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
