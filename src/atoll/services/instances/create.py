"""Creating instances from an image, from nothing, or from an origin that another module knows; and deleting them.

A row with phase "creating" stands in the database before anything is made on the host, and one with "deleting" until all is
gone: whatever moment a kill chooses, `repair` knows what to do.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

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
from atoll.drivers.instance.contract import MachineId
from atoll.host import folders
from atoll.services.images.pull import ImagePuller
from atoll.services.images.service import ImageService
from atoll.services.images.sources import Source
from atoll.services.instances import instance_types, nic_addresses, records, root_size
from atoll.services.instances.core import InstanceCore, Loaded, instance_resources
from atoll.services.instances.devices import DeviceService, refuse_shared_paths
from atoll.services.instances.expand import Expanded, expand
from atoll.services.instances.idmap_keeper import IdmapKeeper
from atoll.services.instances.sockets import Sockets
from atoll.services.networks import NetworkService
from atoll.services.operations import Operation, OperationRegistry, OperationSpec, Work

log = logging.getLogger(__name__)

CREATING, DELETING = "creating", "deleting"
_DECIDED_HERE = ("volatile.base_image", "volatile.last_state.power")
"""Volatile keys that a client has no say in; others it may bring along, as one does that moves an instance by copying it."""


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


Around = Callable[[], AbstractAsyncContextManager[None]]
"""Runs around the making of an instance until that is whole; then nothing takes it back."""

Also = Callable[[Transaction, Loaded], Awaitable[None]]
"""Writes something in the transaction that writes an instance's rows."""


class Origin(Protocol):
    """Where the root volume of a new instance comes from."""

    @property
    def trigger(self) -> Trigger:
        """The templates that the first start renders."""

    @property
    def machines(self) -> Sequence[MachineId]:
        """Other instances that have to stay as they are while `make` runs."""

    async def make(self, loaded: Loaded, operation: Operation) -> None:
        """Make the volume, and the snapshots whose records were written before. All of that is removed after a failure."""

    async def settle(self, tx: Transaction, loaded: Loaded) -> Mapping[str, str]:
        """Part of the transaction that makes the instance whole. Returns the volatile keys that this has given it."""


class Nothing:
    """An empty root file system."""

    trigger = Trigger.CREATE
    machines: Sequence[MachineId] = ()

    def __init__(self, core: InstanceCore) -> None:
        self._core = core

    async def make(self, loaded: Loaded, operation: Operation) -> None:
        await self._core.storage.driver(loaded.pool).create(loaded.volume)

    async def settle(self, tx: Transaction, loaded: Loaded) -> Mapping[str, str]:
        return {}


class ImageOrigin:
    """An image of this server."""

    trigger = Trigger.CREATE
    machines: Sequence[MachineId] = ()

    def __init__(self, core: InstanceCore, images: ImageService, image: Image) -> None:
        self._core = core
        self._images = images
        self._image = image

    async def make(self, loaded: Loaded, operation: Operation) -> None:
        source = await self._images.unpack(self._image, loaded.pool, operation)
        await self._core.storage.driver(loaded.pool).clone(source, loaded.volume)

    async def settle(self, tx: Transaction, loaded: Loaded) -> Mapping[str, str]:
        await self._images.touch(tx, self._image)
        return {}


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
        self._making: Counter[MachineId] = Counter()

    # --- asking --------------------------------------------------------------------------------------------------------

    async def from_image(self, request: Request, image: Image, *, caller: Caller) -> Operation:
        """From an image of this server."""
        origin = ImageOrigin(self._core, self._images, image)
        return await self.start(_with_image(request, image), origin, caller=caller, base_image=image.fingerprint)

    async def from_elsewhere(self, request: Request, source: Source, puller: ImagePuller, *, caller: Caller) -> Operation:
        """From an image of another server, which is downloaded first unless it is here; what can be refused before is."""
        source.check()
        request = dataclasses.replace(request, architecture="")  # the image will have one
        request = dataclasses.replace(request, name=(await self._complete(request)).name)
        async with self._core.database.read() as tx:
            if (request.project, request.name) in await rows.names(tx, request.project):
                raise Conflict(f"Instance {request.name!r} already exists")

        async def work(operation: Operation) -> None:
            image = await puller.for_instance(request.project, source, operation, caller=caller)
            origin = ImageOrigin(self._core, self._images, image)
            whole = await self._complete(_with_image(request, image))
            with self._marked(whole):
                loaded = await self._begin(whole, origin, base_image=image.fingerprint)
                await self._finish(loaded, origin, operation, caller=caller)

        return self._run("Creating instance", request, work, caller)

    async def empty(self, request: Request, *, caller: Caller) -> Operation:
        """With an empty root file system."""
        return await self.start(request, Nothing(self._core), caller=caller)

    # --- creating ------------------------------------------------------------------------------------------------------

    async def start(
        self,
        request: Request,
        origin: Origin,
        *,
        caller: Caller,
        base_image: str = "",
        description: str = "Creating instance",
        sockets: Sockets | None = None,
        around: Around = nullcontext,
    ) -> Operation:
        """The operation that makes an instance; what is wrong with the request is told at once. `sockets`: what the origin waits
        for."""
        request = await self._complete(request)
        with ExitStack() as stack:
            stack.enter_context(self._marked(request))
            loaded = await self._begin(request, origin, base_image=base_image)

            async def work(operation: Operation) -> None:
                await self._finish(loaded, origin, operation, around, caller=caller)

            operation = self._run(description, request, work, caller, sockets)
            operation.when_done(stack.pop_all().close)  # also if it is cancelled before it does anything
        return operation

    @contextmanager
    def _marked(self, request: Request) -> Iterator[None]:
        """Somebody is going to make it: its row is written before its lock is held, which may take as long as others hold that of
        what it is made of."""
        machine = MachineId(request.project, request.name)
        self._making[machine] += 1
        try:
            yield
        finally:
            self._making[machine] -= 1
            if not self._making[machine]:
                del self._making[machine]

    def _run(self, description: str, request: Request, work: Work, caller: Caller, sockets: Sockets | None = None) -> Operation:
        resources = instance_resources(request.name)
        spec = OperationSpec(description, work, project=request.project, resources=resources, caller=caller)
        return self._operations.start(spec if sockets is None else sockets.declare(spec))

    async def _begin(self, request: Request, origin: Origin, *, base_image: str) -> Loaded:
        """Write the rows; from then on there is something to repair after a kill."""
        return await self._write_row(request, records.initial_volatile(base_image=base_image, trigger=origin.trigger))

    async def _finish(
        self, loaded: Loaded, origin: Origin, operation: Operation, around: Around = nullcontext, *, caller: Caller
    ) -> None:
        async with self._core.hold(loaded.machine, *origin.machines):
            await self._make(loaded, origin, operation, around)
        context = {"type": loaded.record.type, "storage-pool": loaded.pool, "location": loaded.record.member}
        self._core.tell("instance-created", loaded.record, caller=caller, context=context)

    async def _complete(self, request: Request) -> Request:
        """Fill in what the client left out, and check what it said."""
        if request.type != "container":
            raise Unsupported("Virtual machines are not supported in this release")
        if not request.name:
            async with self._core.database.read() as tx:
                taken = {name for _, name in await rows.names(tx, request.project)}
            request = dataclasses.replace(request, name=records.generate_name(taken))
        names.instance(request.name)
        config = records.without_empty(request.config)
        if request.instance_type:
            config = {**instance_types.limits_of(request.instance_type), **config}
        self._core.check_config(config)
        architecture = architectures.canonical(request.architecture or self._core.facts.architecture)
        return dataclasses.replace(
            request,
            config=config,
            devices=records.whole_devices(request.devices),
            architecture=architecture,
            profiles=request.profiles if request.profiles is not None else ("default",),
        )

    async def record(self, request: Request, volatile: Mapping[str, str], also: Also) -> Loaded:
        """The rows alone, of an instance whose volume is there: checked as those of any other, with what `also` writes. Then its
        networks are told of it."""
        loaded = await self._write_row(await self._complete(request), volatile, phase="", also=also)
        await self._networks.reserve(loaded.record, loaded.expanded, {})
        return loaded

    async def _write_row(
        self, request: Request, volatile: Mapping[str, str], *, phase: str = CREATING, also: Also | None = None
    ) -> Loaded:
        """Check everything against the database and write the rows of instance and volume, in one transaction."""
        profiles = request.profiles or ()
        config = {**volatile, **request.config, **{key: volatile[key] for key in _DECIDED_HERE if key in volatile}}
        async with self._core.database.write() as tx:
            available = await self._core.profiles_in(tx, request.project)
            self._core.find_missing(profiles, available)
            expanded = expand(config, request.devices, [available[name] for name in profiles])
            await self._devices.validate(tx, request.project, request.devices)
            refuse_shared_paths(expanded.devices)
            pool = await self._check_root(tx, expanded)
            machine = MachineId(request.project, request.name)
            config |= nic_addresses.initial(expanded, self._networks.new_hwaddr)
            config |= await IdmapKeeper(self._core).choose(tx, machine, expanded.config)
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
                phase=phase,
            )
            try:
                await rows.create(tx, new)
            except Conflict as error:
                raise Conflict(f"Instance {request.name!r} already exists") from error
            await storage_rows.create_volume(tx, pool, request.project, "container", request.name, config={}, created_at=now)
            loaded = await self._core.load_in(tx, request.project, request.name)
            if also is not None:
                await also(tx, loaded)
            return loaded

    async def _check_root(self, tx: Transaction, expanded: Expanded) -> str:
        name, device = expanded.root_disk()
        pool = device.get("pool", "")
        if not pool:
            raise BadRequest(f"Device {name!r}: the root disk needs a pool")
        try:
            await storage_rows.pool(tx, pool)
        except NotFound as error:
            raise BadRequest(f"Storage pool {pool!r} of the root disk doesn't exist") from error
        self._core.storage.driver(pool)  # Unavailable before anything is written
        return pool

    async def _make(self, loaded: Loaded, origin: Origin, operation: Operation, around: Around) -> None:
        driver = self._core.storage.driver(loaded.pool)
        async with Reverter(f"create instance {loaded.machine.key}", step_seconds=600.0) as undo:
            undo.add(self._finish_delete, loaded)
            async with around():
                await origin.make(loaded, operation)
                await root_size.apply(self._core, loaded)
                await folders.make_instance_folders(self._core.paths, loaded.machine.key, driver.data(loaded.volume))
                async with self._core.database.write() as tx:
                    await rows.set_phase(tx, loaded.record.id, "")
                    volatile = await origin.settle(tx, loaded)
                await self._networks.reserve(loaded.record, loaded.expanded, volatile)
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
            raise BadRequest("Instance is protected", hint="unset security.protection.delete to delete it")
        self._core.storage.driver(loaded.pool)  # before anything is noted: what is not there cannot be deleted

    async def delete_held(self, project: str, name: str, *, caller: Caller) -> None:
        """As `delete`, for a caller that holds the instance's lock. Waits until nobody reads from one of its snapshots."""
        loaded = await self._core.load(project, name)
        self._check_deletable(loaded)
        if self._is_to_come(loaded):
            raise Conflict(f"Instance is busy: {loaded.record.phase}")
        async with self._core.database.read() as tx:
            snapshots = await rows.snapshots_of(tx, loaded.record.id)
        async with self._core.hold_snapshots(loaded.machine, [each.name for each in snapshots]):
            async with self._core.database.write() as tx:
                await rows.set_phase(tx, loaded.record.id, DELETING)
            await self._finish_delete(loaded)
        for snapshot in (each for each in snapshots if not each.phase):  # others nobody has heard of
            self._core.tell("instance-snapshot-deleted", loaded.record, suffix=f"/snapshots/{snapshot.name}", caller=caller)
        self._core.tell("instance-deleted", loaded.record, caller=caller)

    async def _finish_delete(self, loaded: Loaded) -> None:
        """Remove everything on the host, then the rows. Can be repeated after a kill at any step."""
        await self._delete_volumes(loaded)
        await self._networks.release(loaded.record.project, loaded.record.name)
        await folders.remove_instance_folders(self._core.paths, loaded.machine.key)
        await self._delete_row(loaded)

    async def _delete_volumes(self, loaded: Loaded) -> None:
        """The root volume with its snapshots."""
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
            await driver.delete(*(loaded.volume.at(snapshot.name) for snapshot in snapshots), loaded.volume)

    # --- after a kill --------------------------------------------------------------------------------------------------

    async def repair(self, pool: str | None = None) -> list[str]:
        """See `settling`: undo what was being created and finish what was being deleted. One sentence for each."""

        async def put_right(loaded: Loaded) -> Sequence[str]:
            phase = loaded.record.phase
            if not self._is_left(loaded):
                return ()
            await self._finish_delete(loaded)
            return [f"removed instance {loaded.machine.key}: its {phase.removesuffix('ing')}ion was cut off"]

        half = [loaded for loaded in await self._core.load_repairable(pool) if self._is_left(loaded)]
        return await self._core.settle(half, put_right)

    def _is_left(self, loaded: Loaded) -> bool:
        """Whether it is half there, and nobody is going to make it."""
        return loaded.record.phase in (CREATING, DELETING) and not self._is_to_come(loaded)

    def _is_to_come(self, loaded: Loaded) -> bool:
        """Whether somebody is going to make it, who may be waiting for its lock still."""
        return loaded.record.phase == CREATING and self._making[loaded.machine] > 0


def _with_image(request: Request, image: Image) -> Request:
    """With what the image says of itself. BadRequest for one of another type."""
    if image.type != request.type:
        raise BadRequest(f"The requested image's type {image.type!r} doesn't match the instance type {request.type!r}")
    properties = {f"image.{key}": value for key, value in image.properties.items()}
    return dataclasses.replace(
        request,
        config={**properties, **request.config},
        profiles=request.profiles if request.profiles is not None else image.profiles,
        architecture=image.architecture,  # whatever the client said: it runs what is in the image
    )
