"""What all use cases of instances share: the records, what they expand to, the locks, and the machine's driver.

Order of locks: an instance's own (`hold`), then whatever the storage and network services take. Nothing is held while a
guest is waited for, except the instance's own lock.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from atoll.db import instances as rows
from atoll.db import profiles as profile_rows
from atoll.db import projects as project_rows
from atoll.db import storage as storage_rows
from atoll.db.engine import Database, Transaction
from atoll.domain.caller import DAEMON, Caller
from atoll.domain.entities import DEFAULT_PROJECT, Instance, Profile, Snapshot
from atoll.domain.errors import BadRequest, Conflict, NotFound
from atoll.domain.idmap import IdRange
from atoll.domain.paths import Paths
from atoll.domain.status import InstanceStatus
from atoll.drivers.instance.contract import InstanceDriver, MachineId
from atoll.drivers.storage.contract import VolumeId, VolumeKind
from atoll.services import settling
from atoll.services.events import EventHub
from atoll.services.instances import records
from atoll.services.instances.expand import Expanded, expand_record
from atoll.services.locks import KeyedLocks
from atoll.services.settling import Half
from atoll.services.storage import StorageService


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What decisions need to know of the host."""

    idmap: IdRange | None  # ids lent to unprivileged instances; None: there are none
    memory_total: int
    cpus: int
    architecture: str
    unprivileged_only: bool = False  # whoever runs the daemon wants no privileged instance, whatever its administrators say


@dataclass(frozen=True, slots=True)
class Loaded:
    """An instance with what it expands to."""

    record: Instance
    expanded: Expanded
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    """Those of its project, by name, as they were when it was loaded."""
    home: str = ""
    """Its pool, where its devices name several as that of the root file system."""

    @property
    def machine(self) -> MachineId:
        """Its name for the instance driver."""
        return machine_of(self.record)

    @property
    def volume(self) -> VolumeId:
        """Its root volume."""
        return volume_of(self.record.project, self.record.name)

    @property
    def pool(self) -> str:
        """The storage pool of its root volume."""
        return self.home or self.expanded.root_disk()[1].get("pool", "")

    @property
    def url(self) -> str:
        """Its address, without project."""
        return f"/1.0/instances/{self.record.name}"


def machine_of(record: Instance) -> MachineId:
    """An instance's name for its driver."""
    return MachineId(record.project, record.name)


def volume_of(project: str, name: str) -> VolumeId:
    """An instance's root volume."""
    return VolumeId(VolumeKind.INSTANCE, project, name)


class InstanceCore:
    """Records, locks and drivers; constructed once, given to every use case."""

    def __init__(
        self,
        *,
        database: Database,
        hub: EventHub,
        paths: Paths,
        driver: InstanceDriver,
        storage: StorageService,
        facts: HostFacts,
    ) -> None:
        self.database = database
        self.hub = hub
        self.paths = paths
        self.driver = driver
        self.storage = storage
        self.facts = facts
        self._locks = KeyedLocks()

    @contextlib.asynccontextmanager
    async def hold(self, *machines: MachineId) -> AsyncIterator[None]:
        """Nothing else happens to these instances meanwhile."""
        async with self._locks.hold(*(machine.key for machine in machines)):
            yield

    @contextlib.asynccontextmanager
    async def hold_snapshot(self, machine: MachineId, snapshot: str) -> AsyncIterator[None]:
        """The snapshot is not removed or renamed meanwhile; its instance is not held by this."""
        async with self._locks.hold(f"{machine.key}/{snapshot}"):
            yield

    @contextlib.asynccontextmanager
    async def hold_snapshots(self, machine: MachineId, snapshots: Iterable[str]) -> AsyncIterator[None]:
        """The same for several."""
        async with self._locks.hold(*(f"{machine.key}/{snapshot}" for snapshot in snapshots)):
            yield

    def is_held(self, machine: MachineId, snapshot: str = "") -> bool:
        """Whether something is being done to the instance, or to that snapshot of it."""
        return self._locks.is_held(f"{machine.key}/{snapshot}" if snapshot else machine.key)

    # --- loading -------------------------------------------------------------------------------------------------------

    async def load(self, project: str, name: str) -> Loaded:
        """One instance. NotFound if there is none."""
        async with self.database.read() as tx:
            return await self.load_in(tx, project, name)

    async def load_in(self, tx: Transaction, project: str, name: str) -> Loaded:
        """As `load`, in a transaction that is open."""
        owner = await self.profile_owner(tx, project)
        results = await tx.queries(*rows.select(project, name), *profile_rows.select(owner))
        found = rows.collect(results[:4])
        if not found:
            raise NotFound("Instance not found")
        profiles = {profile.name: profile for profile in profile_rows.collect(results[4:])}
        [loaded] = await _at_home(tx, [Loaded(found[0], expand_record(found[0], profiles), profiles)])
        return loaded

    async def load_all(self, project: str | None) -> list[Loaded]:
        """All of a project, or of all projects, in a fixed number of statements."""
        async with self.database.read() as tx:
            records = await rows.find_all(tx, project)
            by_project = await self._profiles_by_project(tx, {record.project for record in records})
            listed = [
                Loaded(record, expand_record(record, profiles), profiles)
                for record in records
                for profiles in (by_project[record.project],)
            ]
            return await _at_home(tx, listed)

    async def load_repairable(self, pool: str | None = None) -> list[Loaded]:
        """For repairs: all whose storage pool is available, or of these those in one pool."""
        listed = await self.load_all(None)
        return [each for each in listed if pool in (None, each.pool) and self.storage.is_available(each.pool)]

    async def settle(
        self,
        listed: Iterable[Loaded],
        put_right: Callable[[Loaded], Awaitable[Sequence[str]]],
        *,
        other: Callable[[Loaded], MachineId] = lambda loaded: loaded.machine,
    ) -> list[str]:
        """See `settling.each`. `other`: the name, beside its own, that nobody else may take meanwhile."""

        def half(loaded: Loaded) -> Half:
            async def settle() -> Sequence[str]:
                try:
                    present = await self.load(loaded.record.project, loaded.record.name)
                except NotFound:
                    return ()
                return await put_right(present)

            keys = (loaded.machine.key, other(loaded).key)
            return Half(f"instance {loaded.machine.key}", keys, settle)

        return await settling.each(self._locks, [half(loaded) for loaded in listed])

    async def profiles_in(self, tx: Transaction, project: str) -> dict[str, Profile]:
        """The profiles that instances of a project can have, by name."""
        owner = await self.profile_owner(tx, project)
        return {profile.name: profile for profile in await profile_rows.find_all(tx, owner)}

    async def volume_owner(self, project: str) -> str:
        """The project that has the custom volumes of one."""
        if project == DEFAULT_PROJECT:
            return project
        async with self.database.read() as tx:
            return (await project_rows.find(tx, project)).owner_of("storage.volumes")

    async def profile_owner(self, tx: Transaction, project: str) -> str:
        """The project whose profiles instances of a project have."""
        if project == DEFAULT_PROJECT:
            return project
        return (await project_rows.find(tx, project)).owner_of("profiles")

    async def _profiles_by_project(self, tx: Transaction, projects: Iterable[str]) -> dict[str, dict[str, Profile]]:
        return {project: await self.profiles_in(tx, project) for project in projects}

    async def load_snapshot(self, project: str, name: str, snapshot: str) -> tuple[Loaded, Snapshot]:
        """An instance and one of its snapshots. NotFound also for one that is only being made, or removed."""
        async with self.database.read() as tx:
            loaded = await self.load_in(tx, project, name)
            found = await rows.find_snapshot(tx, loaded.record.id, snapshot)
        if found.phase:
            raise NotFound("Instance snapshot not found")
        return loaded, found

    # --- changing ------------------------------------------------------------------------------------------------------

    async def patch_volatile(self, record: Instance, changes: Mapping[str, str]) -> None:
        """Set keys of an instance's own configuration; an empty value removes one."""
        different = {key: value for key, value in changes.items() if record.config.get(key, "") != value}
        if different:
            async with self.database.write() as tx:
                await rows.patch_config(tx, record.id, different)

    def tell(
        self,
        action: str,
        record: Instance,
        *,
        caller: Caller = DAEMON,
        context: Mapping[str, Any] | None = None,
        suffix: str = "",
    ) -> None:
        """A lifecycle event of an instance."""
        url = f"/1.0/instances/{record.name}{suffix}"
        self.hub.lifecycle(action, url, project=record.project, context=context, caller=caller)

    # --- deciding ------------------------------------------------------------------------------------------------------

    def check_config(self, config: Mapping[str, str]) -> None:
        """BadRequest unless a client may give an instance or a profile these keys with these values."""
        records.check_config(config)
        if config.get("raw.lxc"):
            self.driver.check_raw(config["raw.lxc"])
        if self.facts.unprivileged_only:
            records.check_unprivileged(config)

    def status(self, record: Instance) -> InstanceStatus:
        """From memory."""
        return self.driver.status(machine_of(record))

    def require_stopped(self, loaded: Loaded, what: str) -> None:
        """Conflict when it runs."""
        if self.status(loaded.record).is_running:
            raise BadRequest(f"The instance must be stopped to be {what}")

    async def require_unread(self, loaded: Loaded) -> None:
        """Conflict if the instance, which is held, has a snapshot that is there for a copy or a backup alone: that is read."""
        async with self.database.read() as tx:
            if any(each.phase for each in await rows.snapshots_of(tx, loaded.record.id)):
                raise Conflict("The instance is being copied or backed up", hint="wait until that is done, or cancel it")

    def require_running(self, loaded: Loaded) -> None:
        """Conflict when it does not run."""
        status = self.status(loaded.record)
        if status is InstanceStatus.FROZEN:
            raise Conflict("Instance is frozen")
        if status is not InstanceStatus.RUNNING:
            raise BadRequest("Instance is not running")

    def host_idmap(self) -> IdRange:
        """The ids lent to unprivileged instances. Conflict, saying what to do, if there are none."""
        if self.facts.idmap is None:
            raise Conflict(
                "There are no host ids for unprivileged instances",
                hint="add a line 'root:1000000:1000000000' to /etc/subuid and /etc/subgid",
            )
        return self.facts.idmap

    def find_missing(self, wanted: Iterable[str], present: Iterable[str]) -> None:
        """NotFound naming the first profile that is not there; BadRequest if one is named twice."""
        known, named = set(present), list(wanted)
        if len(set(named)) < len(named):
            raise BadRequest("Duplicate profile found in request")
        for name in named:
            if name not in known:
                raise NotFound(f"Requested profile {name!r} doesn't exist")


async def _at_home(tx: Transaction, listed: list[Loaded]) -> list[Loaded]:
    """With `home` where it is needed: the database's word for where the volumes are."""
    if all(len(each.expanded.root_disks()) < 2 for each in listed):
        return listed
    volumes = await storage_rows.volumes(tx)
    pools = {(each.project, each.name): each.pool for each in volumes if each.type in ("container", "virtual-machine")}
    return [
        dataclasses.replace(each, home=pools.get((each.record.project, each.record.name), ""))
        if len(each.expanded.root_disks()) > 1
        else each
        for each in listed
    ]


def instance_resources(*names: str) -> dict[str, list[str]]:
    """The `resources` of an operation on instances; without their project, as clients take the names out of the URLs."""
    return {
        "containers": [f"/1.0/containers/{name}" for name in names],
        "instances": [f"/1.0/instances/{name}" for name in names],
    }
