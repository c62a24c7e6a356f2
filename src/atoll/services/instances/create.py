"""Creating instances: from an image, from nothing, from another instance or one of its snapshots; and deleting them.

A row with phase "creating" stands in the database before anything is made on the host, and one with "deleting" until all is
gone: whatever moment a kill chooses, `repair` knows what to do.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from atoll import config as keys
from atoll.db import instances as rows
from atoll.db import storage as storage_rows
from atoll.db.engine import Transaction
from atoll.domain import architectures, clock, names
from atoll.domain.caller import Caller
from atoll.domain.entities import Image
from atoll.domain.errors import BadRequest, Conflict, NotFound, Unsupported
from atoll.domain.image_metadata import Trigger
from atoll.domain.undo import Reverter
from atoll.drivers.storage.contract import VolumeId
from atoll.host import folders
from atoll.services.images.service import ImageService
from atoll.services.instances import records
from atoll.services.instances.core import InstanceCore, Loaded, instance_resources
from atoll.services.instances.devices import DeviceService
from atoll.services.instances.expand import Expanded, expand
from atoll.services.networks import NetworkService
from atoll.services.operations import Operation, OperationRegistry, OperationSpec

log = logging.getLogger(__name__)

CREATING, DELETING = "creating", "deleting"


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks for. `profiles` None: the image's, or the default one."""

    project: str
    name: str
    type: str = "container"
    architecture: str = ""
    description: str = ""
    ephemeral: bool = False
    config: Mapping[str, str] = field(default_factory=dict)
    devices: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    profiles: tuple[str, ...] | None = None
    instance_type: str = ""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the root file system comes from: an image, another volume, or (neither) nothing."""

    image: Image | None = None
    pool: str = ""
    volume: VolumeId | None = None


class InstanceCreator:
    """Use cases of creation and deletion."""

    def __init__(
        self,
        core: InstanceCore,
        devices: DeviceService,
        images: ImageService,
        networks: NetworkService,
        operations: OperationRegistry,
    ) -> None:
        self._core = core
        self._devices = devices
        self._images = images
        self._networks = networks
        self._operations = operations

    # --- asking --------------------------------------------------------------------------------------------------------

    async def from_image(self, request: Request, image: Image, *, caller: Caller) -> Operation:
        """From an image of this server."""
        properties = {f"image.{key}": value for key, value in image.properties.items()}
        profiles = request.profiles if request.profiles is not None else image.profiles
        request = dataclasses.replace(
            request,
            config={**properties, **request.config},
            profiles=profiles,
            architecture=request.architecture or image.architecture,
        )
        if image.type != request.type:
            raise BadRequest(f"The requested image's type {image.type!r} doesn't match the instance type {request.type!r}")
        return await self._start(request, Origin(image=image), caller=caller, base_image=image.fingerprint)

    async def empty(self, request: Request, *, caller: Caller) -> Operation:
        """With an empty root file system."""
        return await self._start(request, Origin(), caller=caller)

    async def copy(self, request: Request, source: str, source_project: str, *, instance_only: bool, caller: Caller) -> Operation:
        """From `NAME` or `NAME/SNAPSHOT` of this server."""
        name, _, snapshot_name = source.partition("/")
        if snapshot_name:
            loaded, snapshot = await self._core.load_snapshot(source_project, name, snapshot_name)
            config, devices = dict(snapshot.config), dict(snapshot.devices)
            record_profiles = snapshot.profiles
            volume = loaded.volume.at(snapshot.name)
        else:
            loaded = await self._core.load(source_project, name)
            config, devices = dict(loaded.record.config), dict(loaded.record.devices)
            record_profiles = loaded.record.profiles
            volume = loaded.volume
            if not instance_only:
                await self._refuse_snapshots(loaded)
        kept = {k: v for k, v in config.items() if not k.startswith("volatile.") or k == "volatile.base_image"}
        request = dataclasses.replace(
            request,
            config={**kept, **request.config},
            devices={**devices, **request.devices},
            profiles=request.profiles if request.profiles is not None else record_profiles,
            architecture=request.architecture or loaded.record.architecture,
        )
        return await self._start(request, Origin(pool=loaded.pool, volume=volume), caller=caller)

    async def _refuse_snapshots(self, loaded: Loaded) -> None:
        async with self._core.database.read() as tx:
            if await rows.snapshots_of(tx, loaded.record.id):
                raise Unsupported(
                    "Copying an instance together with its snapshots is not supported in this release",
                    hint="copy the instance only",
                )

    # --- creating ------------------------------------------------------------------------------------------------------

    async def _start(self, request: Request, origin: Origin, *, caller: Caller, base_image: str = "") -> Operation:
        request = await self._complete(request)
        trigger = Trigger.CREATE if origin.volume is None else Trigger.COPY
        loaded = await self._write_row(request, records.initial_volatile(base_image=base_image, trigger=trigger))

        async def work(operation: Operation) -> None:
            async with self._core.hold(loaded.machine):
                await self._make(loaded, origin, operation)
            self._core.tell(
                "instance-created",
                loaded.record,
                caller=caller,
                context={"type": request.type, "storage-pool": loaded.pool, "location": loaded.record.member},
            )

        return self._operations.start(
            OperationSpec(
                "Creating instance",
                work,
                project=request.project,
                resources=instance_resources(request.name),
                caller=caller,
            )
        )

    async def _complete(self, request: Request) -> Request:
        """Fill in what the client left out, and check what it said."""
        if request.type != "container":
            raise Unsupported("Virtual machines are not supported in this release")
        if not request.name:
            async with self._core.database.read() as tx:
                taken = {name for _, name in await rows.names(tx, request.project)}
            request = dataclasses.replace(request, name=records.generate_name(taken))
        names.instance(request.name)
        config = dict(request.config)
        if request.instance_type:
            config = {**records.limits_of_type(request.instance_type), **config}
        records.check_config(config)
        architecture = architectures.canonical(request.architecture or self._core.facts.architecture)
        return dataclasses.replace(
            request,
            config=config,
            architecture=architecture,
            profiles=request.profiles if request.profiles is not None else ("default",),
        )

    async def _write_row(self, request: Request, volatile: Mapping[str, str]) -> Loaded:
        """Check everything against the database and write the rows of instance and volume, in one transaction."""
        profiles = request.profiles or ()
        config = {**request.config, **volatile}
        async with self._core.database.write() as tx:
            available = await self._core.profiles_in(tx, request.project)
            self._core.find_missing(profiles, available)
            expanded = expand(config, request.devices, [available[name] for name in profiles])
            await self._devices.validate(tx, request.project, request.devices)
            pool = await self._check_root(tx, expanded)
            now = clock.rfc3339()
            new = rows.NewInstance(
                project=request.project,
                name=request.name,
                type=request.type,
                architecture=request.architecture,
                ephemeral=request.ephemeral,
                description=request.description,
                created_at=now,
                config=config,
                devices=request.devices,
                profiles=profiles,
                profile_project=await self._core.profile_owner(tx, request.project),
                phase=CREATING,
            )
            try:
                await rows.create(tx, new)
            except Conflict as error:
                raise Conflict(f"Instance {request.name!r} already exists") from error
            await storage_rows.create_volume(tx, pool, request.project, "container", request.name, config={}, created_at=now)
            return await self._core.load_in(tx, request.project, request.name)

    async def _check_root(self, tx: Transaction, expanded: Expanded) -> str:
        name, device = expanded.root_disk()
        pool = device.get("pool", "")
        if not pool:
            raise BadRequest(f"Device {name!r}: the root disk needs a pool")
        try:
            await storage_rows.pool(tx, pool)
        except NotFound as error:
            raise BadRequest(f"Storage pool {pool!r} of the root disk doesn't exist") from error
        return pool

    async def _make(self, loaded: Loaded, origin: Origin, operation: Operation) -> None:
        driver = self._core.storage.driver(loaded.pool)
        async with Reverter(f"create instance {loaded.machine.key}") as undo:
            undo.add(self._delete_row, loaded)
            undo.add(driver.delete, loaded.volume)
            if origin.image is not None:
                image = origin.image
                source = await self._core.storage.ensure_image(
                    loaded.pool, image.fingerprint, self._images.fill(image, operation)
                )
                await driver.clone(source, loaded.volume)
            elif origin.volume is not None:
                if origin.pool != loaded.pool:
                    raise Unsupported("Copying between storage pools is not supported in this release")
                await driver.clone(origin.volume, loaded.volume)
            else:
                await driver.create(loaded.volume)
            await folders.make_instance_folders(self._core.paths, loaded.machine.key, driver.data(loaded.volume))
            undo.add(folders.remove_instance_folders, self._core.paths, loaded.machine.key)
            async with self._core.database.write() as tx:
                await rows.set_phase(tx, loaded.record.id, "")
                if origin.image is not None:
                    await self._images.touch(tx, origin.image)
            undo.success()

    async def _delete_row(self, loaded: Loaded) -> None:
        async with self._core.database.write() as tx:
            await rows.delete(tx, loaded.record.id)
            await tx.execute(
                """DELETE FROM storage_volumes WHERE type = 'container' AND name = ?
                AND project_id = (SELECT id FROM projects WHERE name = ?)""",
                loaded.record.name,
                loaded.record.project,
            )

    # --- deleting ------------------------------------------------------------------------------------------------------

    async def delete(self, project: str, name: str, *, caller: Caller) -> Operation:
        """A stopped instance, with all its snapshots and backups."""
        loaded = await self._core.load(project, name)
        self._check_deletable(loaded)

        async def work(_: Operation) -> None:
            async with self._core.hold(loaded.machine):
                await self.delete_held(project, name, caller=caller)

        return self._operations.start(
            OperationSpec("Deleting instance", work, project=project, resources=instance_resources(name), caller=caller)
        )

    def _check_deletable(self, loaded: Loaded) -> None:
        if self._core.status(loaded.record).is_running:
            raise BadRequest("Instance is running")
        if keys.INSTANCE.get(loaded.expanded.config, "security.protection.delete"):
            raise BadRequest("Instance is protected")

    async def delete_held(self, project: str, name: str, *, caller: Caller) -> None:
        """As `delete`, by who holds the instance's lock."""
        loaded = await self._core.load(project, name)
        self._check_deletable(loaded)
        async with self._core.database.write() as tx:
            await rows.set_phase(tx, loaded.record.id, DELETING)
        await self._finish_delete(loaded)
        self._core.tell("instance-deleted", loaded.record, caller=caller)

    async def _finish_delete(self, loaded: Loaded) -> None:
        """Remove everything on the host, then the rows. Can be repeated after a kill at any step."""
        async with self._core.database.read() as tx:
            snapshots = await rows.snapshots_of(tx, loaded.record.id)
            volumes = [
                v
                for v in await storage_rows.volumes(tx, project=loaded.record.project, type="container")
                if v.name == loaded.record.name
            ]
        for row in volumes:
            driver = self._core.storage.driver(row.pool)
            await driver.unmount(loaded.volume)
            for snapshot in snapshots:
                await driver.delete(loaded.volume.at(snapshot.name))
            await driver.delete(loaded.volume)
        await self._networks.release(loaded.record.project, loaded.record.name)
        await folders.remove_instance_folders(self._core.paths, loaded.machine.key)
        await self._delete_row(loaded)

    # --- after a kill --------------------------------------------------------------------------------------------------

    async def repair(self) -> list[str]:
        """Undo what was being created and finish what was being deleted. One sentence for each."""
        done: list[str] = []
        for loaded in await self._core.load_all(None):
            phase = loaded.record.phase
            if phase not in (CREATING, DELETING):
                continue
            await self._finish_delete(loaded)
            done.append(f"removed instance {loaded.machine.key}: its {phase.removesuffix('ing')}ion was cut off")
        return done
