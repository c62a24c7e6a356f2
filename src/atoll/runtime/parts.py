"""What a daemon is made of: its databases, drivers and services, each given what it needs of the others.

This is the composition root, with `atoll.runtime.routes` and `atoll.runtime.upkeep`: nothing else sees everything.
"""

from __future__ import annotations

from dataclasses import dataclass

from atoll.api.listeners import Listeners
from atoll.db.engine import Database
from atoll.domain.caller import DAEMON
from atoll.domain.paths import Paths
from atoll.drivers import instance as instance_drivers
from atoll.drivers.instance.contract import InstanceDriver
from atoll.host import cgroup, facts, pki
from atoll.host.tls import ServerTls
from atoll.host.x509 import ServerFiles
from atoll.services.certificates import CertificateService
from atoll.services.daemon_storage import DaemonStorage
from atoll.services.events import EventHub
from atoll.services.guest.events import GuestEvents
from atoll.services.images.pull import ImagePuller
from atoll.services.images.rules import ImageRules
from atoll.services.images.service import ImageService
from atoll.services.images.sources import ImageSources
from atoll.services.instances.backups import BackupService
from atoll.services.instances.copy import InstanceCopier
from atoll.services.instances.core import HostFacts, InstanceCore
from atoll.services.instances.cpu_balance import CpuBalancer
from atoll.services.instances.create import InstanceCreator
from atoll.services.instances.devices import DeviceService
from atoll.services.instances.lifecycle import InstanceLifecycle
from atoll.services.instances.move import InstanceMover
from atoll.services.instances.query import InstanceQuery
from atoll.services.instances.refresh import InstanceRefresher
from atoll.services.instances.snapshot_restore import SnapshotRestore
from atoll.services.instances.snapshot_tasks import SnapshotTasks
from atoll.services.instances.snapshots import SnapshotService
from atoll.services.instances.state import InstanceRunner
from atoll.services.instances.update import InstanceUpdater
from atoll.services.networks import NetworkService
from atoll.services.operations import OperationRegistry
from atoll.services.projects import ProjectService
from atoll.services.settings import SettingsService
from atoll.services.storage import StorageService
from atoll.services.trust import TrustStore
from atoll.services.trust_tokens import TrustTokens
from atoll.services.volume_backup_import import VolumeImporter
from atoll.services.volume_backups import VolumeBackups
from atoll.services.volume_copy import VolumeCopier
from atoll.services.volume_move import VolumeMover
from atoll.services.volume_settings import VolumeSettings
from atoll.services.volume_snapshots import VolumeSnapshots
from atoll.services.volume_uploads import VolumeUploads
from atoll.services.volume_users import VolumeUsers
from atoll.services.volumes import VolumeService
from atoll.services.warnings import WarningService


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
    """The use cases of custom volumes, beside those of `VolumeService`."""

    users: VolumeUsers
    copier: VolumeCopier
    mover: VolumeMover
    backups: VolumeBackups
    uploads: VolumeUploads
    snapshots: VolumeSnapshots
    settings: VolumeSettings


class Parts:
    """The parts of one daemon on one state directory. Nothing of it is open yet: `Daemon.start` does that."""

    def __init__(self, paths: Paths, *, driver: str) -> None:
        self.paths = paths
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
        self.trust = TrustStore(self.settings, pki.AuthorityFiles.of(paths.root))
        tokens = TrustTokens(self.operations, self.settings, self.tls)
        self.certificates = CertificateService(self.global_db, self.hub, self.settings, self.trust, tokens)
        self.listeners = Listeners(paths, self.settings, self.tls, self.trust)
        self.guests = GuestEvents()
        self.instances = self._make_instances()
        self.custom_volumes = self._make_volumes()

    def _make_instances(self) -> Instances:
        core = InstanceCore(
            database=self.global_db,
            hub=self.hub,
            paths=self.paths,
            driver=self.driver,
            storage=self.storage,
            facts=_host_facts(),
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
            users=users,
            copier=copier,
            mover=VolumeMover(database, storage, volumes, users, copier, backups, operations),
            backups=backups,
            uploads=VolumeUploads(database, self.paths, storage, volumes, importer, operations),
            snapshots=VolumeSnapshots(database, storage, volumes, users),
            settings=VolumeSettings(database, volumes, users),
        )


def _host_facts() -> HostFacts:
    return HostFacts(
        facts.lent_ids(),
        facts.memory_total(),
        facts.cpus(),
        facts.architecture(),
        unprivileged_only=facts.unprivileged_only(),
    )
