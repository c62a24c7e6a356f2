"""Every route of the API, with the services that answer it."""

from __future__ import annotations

from collections.abc import Sequence

from atoll.api.route import Route, Routes
from atoll.api.routes.backups import BackupRoutes
from atoll.api.routes.certificates import CertificateRoutes
from atoll.api.routes.console import ConsoleRoutes
from atoll.api.routes.exec import ExecRoutes
from atoll.api.routes.files import FileRoutes
from atoll.api.routes.host import HostRoutes
from atoll.api.routes.image_aliases import ImageAliasRoutes
from atoll.api.routes.images import ImageRoutes
from atoll.api.routes.instance_copies import InstanceCopies
from atoll.api.routes.instance_metadata import InstanceMetadataRoutes
from atoll.api.routes.instance_migrations import InstanceMigrations
from atoll.api.routes.instance_state import InstanceStateRoutes
from atoll.api.routes.instances import InstanceRoutes
from atoll.api.routes.internal import InternalRoutes
from atoll.api.routes.logs import LogRoutes
from atoll.api.routes.metrics import MetricsRoutes
from atoll.api.routes.networks import NetworkRoutes
from atoll.api.routes.openapi import OpenApiRoutes
from atoll.api.routes.operations import OperationRoutes
from atoll.api.routes.profiles import ProfileRoutes
from atoll.api.routes.projects import ProjectRoutes
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
from atoll.runtime.parts import Parts
from atoll.services.images.aliases import ImageAliases
from atoll.services.images.jobs import ImageJobs
from atoll.services.images.push import ImageInbox, ImagePusher
from atoll.services.instances.backup_import import BackupImporter
from atoll.services.instances.console import ConsoleService
from atoll.services.instances.exec import ExecService
from atoll.services.instances.files import FileService
from atoll.services.instances.logs import LogService
from atoll.services.instances.metadata import MetadataService
from atoll.services.instances.profile_change import ProfileChanger
from atoll.services.instances.publish import PublishSources
from atoll.services.instances.recover import RecoverService
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
from atoll.services.profiles import ProfileService
from atoll.services.server import ServerInfo


def table(parts: Parts, server: ServerInfo, internal: InternalRoutes) -> list[Route]:
    """All routes, and that of the description made from them."""
    rsync = ByRsync(parts.storage, parts.paths)
    ways = Ways([BySubvolumes(), ByLayers(parts.images, rsync), ByBlocks(parts.storage), rsync])
    groups: Sequence[Routes] = (
        ServerRoutes(parts.settings, server),
        CertificateRoutes(parts.certificates, server, parts.listeners.certificate),
        *_of_instances(parts, ways),
        *_of_images(parts),
        *_of_projects(parts),
        *_of_storage(parts, ways),
        NetworkRoutes(parts.networks),
        OperationRoutes(parts.operations, parts.hub),
        WarningRoutes(parts.warnings),
        MetricsRoutes(parts.instances.core, parts.settings),
        HostRoutes(),
        internal,
    )
    routes = [route for group in groups for route in group.table()]
    return [*routes, *OpenApiRoutes(routes).table()]


def _of_instances(parts: Parts, ways: Ways) -> Sequence[Routes]:
    instances, operations = parts.instances, parts.operations
    core, devices, creator = instances.core, instances.devices, instances.creator
    migrations = InstanceMigrations(
        MigrationSource(core, ways, operations),
        MigrationTarget(core, ways, devices, creator, instances.refresher, operations),
    )
    return (
        InstanceRoutes(
            instances.query,
            creator,
            instances.updater,
            instances.snapshots,
            parts.images,
            InstanceCopies(instances.copier, instances.refresher, instances.mover),
            BackupImporter(core, devices, creator),
            parts.puller,
            migrations,
        ),
        InstanceStateRoutes(instances.query, instances.runner),
        ExecRoutes(ExecService(core, operations)),
        LogRoutes(LogService(core)),
        ConsoleRoutes(ConsoleService(core, operations)),
        WaitRoutes(WaitService(core, operations)),
        SnapshotRoutes(core, instances.snapshots, migrations),
        BackupRoutes(instances.backups),
        RecoverRoutes(RecoverService(core, devices, creator)),
        FileRoutes(FileService(core)),
        InstanceMetadataRoutes(MetadataService(core)),
    )


def _of_images(parts: Parts) -> Sequence[Routes]:
    images, operations = parts.images, parts.operations
    publish_source = PublishSources(parts.instances.core).open
    jobs = ImageJobs(parts.global_db, images, parts.projects, operations, puller=parts.puller, publish_source=publish_source)
    return (
        ImageAliasRoutes(ImageAliases(parts.global_db, parts.hub, images)),
        ImageRoutes(images, jobs, ImageInbox(images, operations), ImagePusher(images, operations)),
    )


def _of_projects(parts: Parts) -> Sequence[Routes]:
    instances = parts.instances
    changer = ProfileChanger(instances.core, instances.updater, parts.networks, parts.guests)
    profiles = ProfileService(parts.global_db, parts.hub, parts.projects, instances.devices, changer)
    return (ProfileRoutes(profiles), ProjectRoutes(parts.projects))


def _of_storage(parts: Parts, ways: Ways) -> Sequence[Routes]:
    storage, volumes, custom, operations = parts.storage, parts.volumes, parts.custom_volumes, parts.operations
    migrations = VolumeMigrations(
        VolumeMigrationSource(storage, volumes, custom.copier, ways, operations),
        VolumeMigrationTarget(storage, volumes, custom.users, custom.copier, ways, operations),
    )
    return (
        StorageRoutes(storage),
        VolumeRoutes(volumes, custom.copier, custom.mover, custom.uploads, custom.snapshots, custom.settings, migrations),
        VolumeSnapshotRoutes(volumes, custom.snapshots, migrations, operations),
        VolumeBackupRoutes(volumes, custom.backups),
    )
