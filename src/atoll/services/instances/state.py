"""Starting, stopping, freezing: what `PUT …/state` does, and what happens when a machine changes by itself.

A stop has two halves: the driver ends the processes, then `_after_stop` puts away what the start had made. The second half also
runs for a guest that powers itself off, and on daemon start for one that did so while the daemon was away.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Coroutine

from atoll import config as keys
from atoll.db import instance_volumes
from atoll.db import instances as rows
from atoll.domain import clock
from atoll.domain.caller import DAEMON, Caller
from atoll.domain.entities import Instance
from atoll.domain.errors import AtollError, BadRequest, Conflict, HostError, NotFound
from atoll.domain.idmap import IdMap
from atoll.domain.status import InstanceStatus, StateAction
from atoll.domain.undo import Reverter
from atoll.drivers.instance.contract import Launch, Limits, MachineEvent, MachineEventKind, MachineId
from atoll.drivers.storage.contract import Mounted
from atoll.host import folders
from atoll.services.instances import devlxd, disk_limits, limits, requirements, templates
from atoll.services.instances.core import InstanceCore, Loaded, instance_resources
from atoll.services.instances.cpu_balance import CpuBalancer
from atoll.services.instances.devices import DeviceService, PreparedAll
from atoll.services.instances.expand import Expanded
from atoll.services.instances.idmap_keeper import IdmapKeeper
from atoll.services.operations import Operation, OperationRegistry, OperationSpec

log = logging.getLogger(__name__)

DEFAULT_STOP_SECONDS = 600.0
POWER = "volatile.last_state.power"

_EVENTS = {
    StateAction.START: "instance-started",
    StateAction.STOP: "instance-stopped",
    StateAction.RESTART: "instance-restarted",
    StateAction.FREEZE: "instance-paused",
    StateAction.UNFREEZE: "instance-resumed",
}
_DESCRIPTIONS = {
    StateAction.START: "Starting instance",
    StateAction.STOP: "Stopping instance",
    StateAction.RESTART: "Restarting instance",
    StateAction.FREEZE: "Freezing instance",
    StateAction.UNFREEZE: "Unfreezing instance",
}

_RUNNING, _FROZEN, _STOPPED = InstanceStatus.RUNNING, InstanceStatus.FROZEN, InstanceStatus.STOPPED
_ACTS_ON = {
    StateAction.START: {_STOPPED, _FROZEN},
    StateAction.STOP: {_RUNNING, _FROZEN},
    StateAction.RESTART: {_RUNNING, _FROZEN},
    StateAction.FREEZE: {_RUNNING},
    StateAction.UNFREEZE: {_FROZEN},
}

DeleteHeld = Callable[[str, str], Awaitable[None]]
"""Deletes an ephemeral instance (project, name) that has stopped. The caller holds its lock."""

BeforeStart = Callable[[Loaded], Awaitable[None]]
"""Called for an instance that is about to start. Never fails."""


class InstanceRunner:
    """Use cases of running instances."""

    def __init__(
        self,
        core: InstanceCore,
        devices: DeviceService,
        operations: OperationRegistry,
        delete_held: DeleteHeld,
        balancer: CpuBalancer,
    ) -> None:
        self._core = core
        self._devices = devices
        self._operations = operations
        self._delete_held = delete_held
        self._stopping: set[MachineId] = set()
        self.idmaps = IdmapKeeper(core)
        self.balancer = balancer
        self._background: set[asyncio.Task[None]] = set()
        self.shutting_down = False
        self.before_start: BeforeStart | None = None
        """Called with the lock of the instance held. Set once, by `runtime.parts`."""

    # --- asking --------------------------------------------------------------------------------------------------------

    async def change(
        self, project: str, name: str, action: StateAction, *, timeout: float, force: bool, stateful: bool, caller: Caller
    ) -> Operation:
        """The operation that does it."""
        loaded = await self._core.load(project, name)
        if stateful:
            raise BadRequest("Stateful stop and start need CRIU, which is not supported in this release")
        if loaded.record.phase:
            raise Conflict(f"Instance is busy: {loaded.record.phase}")
        if action is StateAction.START:
            self._core.storage.driver(loaded.pool)  # Unavailable at once, not as the operation's failure

        async def work(_: Operation) -> None:
            await self.act(loaded.machine, action, timeout=timeout, force=force, caller=caller)

        return self._operations.start(
            OperationSpec(
                _DESCRIPTIONS[action],
                work,
                project=project,
                resources=instance_resources(name),
                caller=caller,
            )
        )

    async def change_all(self, project: str, *, action: StateAction, timeout: float, force: bool, caller: Caller) -> Operation:
        """The operation that does it to all instances of a project for which it makes sense; failures are collected."""
        wanted = _ACTS_ON[action]
        listed = [each for each in await self._core.load_all(project) if self._core.status(each.record) in wanted]

        async def work(_: Operation) -> None:
            results = await asyncio.gather(
                *(self.act(each.machine, action, timeout=timeout, force=force, caller=caller) for each in listed),
                return_exceptions=True,
            )
            failed = [
                f"{each.record.name}: {result}"
                for each, result in zip(listed, results, strict=True)
                if isinstance(result, BaseException)
            ]
            if failed:
                raise HostError(f"{len(failed)} of {len(listed)} instances failed: {'; '.join(failed[:5])}")

        return self._operations.start(
            OperationSpec(
                _DESCRIPTIONS[action],
                work,
                project=project,
                resources=instance_resources(*(each.record.name for each in listed)),
                caller=caller,
            )
        )

    async def act(self, machine: MachineId, action: StateAction, *, timeout: float, force: bool, caller: Caller) -> None:
        """Do it now, holding the instance's lock."""
        async with self._core.hold(machine):
            loaded = await self._core.load(machine.project, machine.name)
            match action:
                case StateAction.START:
                    await self.start_held(loaded)
                case StateAction.STOP:
                    await self._stop_held(loaded, timeout=timeout, force=force)
                case StateAction.RESTART:
                    await self._restart_held(loaded, timeout=timeout, force=force)
                case StateAction.FREEZE:
                    self._core.require_running(loaded)
                    await self._core.driver.freeze(machine)
                case StateAction.UNFREEZE:
                    if self._core.status(loaded.record) is not InstanceStatus.FROZEN:
                        raise BadRequest("The instance isn't frozen")
                    await self._core.driver.thaw(machine)
        self._core.tell(_EVENTS[action], loaded.record, caller=caller)

    # --- start ---------------------------------------------------------------------------------------------------------

    async def halt_held(self, loaded: Loaded) -> None:
        """End a running one by force and put it away. The caller holds its lock, and starts it again: an ephemeral one stays."""
        await self._end(loaded, None)

    async def start_held(self, loaded: Loaded) -> None:
        """Run it; nothing of the attempt is left when it fails."""
        if self.shutting_down:
            raise Conflict("The daemon is shutting down")
        status = self._core.status(loaded.record)
        if status is InstanceStatus.FROZEN:
            await self._core.driver.thaw(loaded.machine)
            return
        if status.is_running:
            raise BadRequest("The instance is already running")
        if self.before_start is not None:
            await self.before_start(loaded)
        await self._require_sound(loaded)
        await requirements.meet(loaded.expanded.config)
        idmap = await self.idmaps.of_next_start(loaded)
        storage = self._core.storage.driver(loaded.pool)
        async with Reverter(f"start instance {loaded.machine.key}") as undo:
            await folders.make_instance_folders(self._core.paths, loaded.machine.key, storage.data(loaded.volume))
            await templates.apply(loaded, storage)
            mounted = await storage.mount(loaded.volume, idmap)
            undo.add(storage.unmount, loaded.volume)
            prepared = await self._devices.prepare(loaded, idmap, undo)
            volatile = {
                **prepared.volatile,
                **self.idmaps.volatile_of_start(loaded, idmap),
                templates.APPLY: "",
                POWER: "RUNNING",
            }
            await self._remember(loaded.record, volatile)
            before = {key: loaded.record.config.get(key, "") for key in prepared.volatile}
            undo.add(self._core.patch_volatile, dataclasses.replace(loaded.record, config=volatile), {**before, POWER: "STOPPED"})
            undo.add(self.balancer.forget, loaded.machine)
            limited = await self.limits_of(loaded, loaded.expanded)
            await self._core.driver.start(self._launch(loaded, idmap, mounted, prepared, limited))
            undo.add(self._kill_quietly, loaded.machine)
            await self._devices.started(prepared)
            await self.balancer.settle()
            undo.success()

    async def _require_sound(self, loaded: Loaded) -> None:
        """BadRequest if a change of a profile left it without a clear root disk, Conflict if it could not be described for a
        recovery: the records of its snapshots are not complete."""
        loaded.expanded.root_disk()
        async with self._core.database.read() as tx:
            if not await instance_volumes.has_all(tx, loaded.record.id):
                raise Conflict(
                    "Instance snapshot record count doesn't match instance snapshot volume record count",
                    hint="the daemon adds what is missing when it is started again",
                )

    def _launch(self, loaded: Loaded, idmap: IdMap | None, mounted: Mounted, prepared: PreparedAll, limited: Limits) -> Launch:
        config = loaded.expanded.config
        key = loaded.machine.key
        return Launch(
            id=loaded.machine,
            uuid=config.get("volatile.uuid", ""),
            rootfs=mounted.rootfs,
            rootfs_idmap=idmap is not None and not mounted.shifted,
            nics=prepared.nics,
            mounts=[*prepared.mounts, *devlxd.mounts(config, self._core.paths)],
            log_dir=self._core.paths.logs(key),
            run_dir=self._core.paths.run(key),
            hostname=loaded.record.name,
            architecture=loaded.record.architecture,
            idmap=idmap,
            limits=limited,
            environment={k.removeprefix("environment."): v for k, v in config.items() if k.startswith("environment.")},
            sysctls={k.removeprefix("linux.sysctl."): v for k, v in config.items() if k.startswith("linux.sysctl.")},
            nesting=bool(keys.INSTANCE.get(config, "security.nesting")),
            syscalls=limits.syscalls_from(config),
            raw=config.get("raw.lxc", ""),
            apparmor=config.get("raw.apparmor", ""),
        )

    async def limits_of(self, loaded: Loaded, expanded: Expanded) -> Limits:
        """Parsed limits that go with an expanded form, which the machine is about to be given: from now on the balance of CPUs
        counts it so."""
        owner = await self._core.volume_owner(loaded.record.project)
        disks = await disk_limits.by_disk(loaded, expanded, self._core.storage, owner=owner)
        cpu_set = self.balancer.place(loaded.machine, expanded.config)
        return limits.from_config(expanded.config, memory_total=self._core.facts.memory_total, cpu_set=cpu_set, disks=disks)

    async def apply_limits(self, loaded: Loaded, expanded: Expanded) -> None:
        """Bring a running machine to the limits of that expanded form."""
        await self._core.driver.set_limits(loaded.machine, await self.limits_of(loaded, expanded))
        await self.balancer.settle()

    async def _remember(self, record: Instance, volatile: dict[str, str]) -> None:
        changed = {key: value for key, value in volatile.items() if record.config.get(key, "") != value}
        async with self._core.database.write() as tx:
            await rows.patch_config(tx, record.id, changed)
            await rows.touch(tx, record.id, clock.rfc3339())

    async def _kill_quietly(self, machine: MachineId) -> None:
        try:
            await self._core.driver.stop(machine, timeout=None)
        except Conflict:
            log.debug("%s had stopped by itself", machine.key)

    # --- stop ----------------------------------------------------------------------------------------------------------

    async def _stop_held(self, loaded: Loaded, *, timeout: float, force: bool) -> None:
        status = self._core.status(loaded.record)
        if not status.is_running:
            raise BadRequest("The instance is already stopped")
        if status is InstanceStatus.FROZEN and not force:
            raise BadRequest("The instance is frozen", hint="unfreeze it first, or stop it by force")
        await self._end(loaded, None if force else timeout)
        if loaded.record.ephemeral:
            await self._delete_held(loaded.record.project, loaded.record.name)

    async def _end(self, loaded: Loaded, timeout: float | None) -> None:
        """End the processes and put away; `_stopping` keeps the event of it from doing the second half too."""
        self._stopping.add(loaded.machine)
        try:
            await self._core.driver.stop(loaded.machine, timeout=timeout)
            await self.after_stop(loaded)
        except BaseException:
            if not self._core.driver.status(loaded.machine).is_running:  # its event was passed over
                self._spawn(self._stopped_by_itself(loaded.machine), f"{loaded.machine.key} stopped")
            raise
        finally:
            self._stopping.discard(loaded.machine)

    async def _restart_held(self, loaded: Loaded, *, timeout: float, force: bool) -> None:
        if not self._core.status(loaded.record).is_running:
            raise BadRequest("The instance is already stopped")
        await self._require_sound(loaded)  # before it is stopped for nothing
        await requirements.meet(loaded.expanded.config)
        await self._end(loaded, None if force else timeout)
        await self.start_held(await self._core.load(loaded.record.project, loaded.record.name))

    async def after_stop(self, loaded: Loaded) -> None:
        """Put away what the start had made. Each part is tried, whatever happened to the others."""
        self.balancer.forget(loaded.machine)
        volatile = await self._devices.release(loaded)
        try:
            await self._core.storage.driver(loaded.pool).unmount(loaded.volume)
        except AtollError as error:
            log.warning("Unmounting %s: %s", loaded.machine.key, error)
        # While the host shuts down the record keeps RUNNING: the next start of the daemon starts the instance again.
        power = {} if self.shutting_down else {POWER: "STOPPED"}
        await self._core.patch_volatile(loaded.record, {**volatile, **power})
        await self.balancer.settle()

    # --- what machines do by themselves --------------------------------------------------------------------------------

    def on_event(self, event: MachineEvent) -> None:
        """The driver's subscriber; called on the event loop."""
        if event.id in self._stopping:
            return
        if event.kind is MachineEventKind.STOPPED:
            self._spawn(self._stopped_by_itself(event.id), f"{event.id.key} stopped")
        elif event.kind is MachineEventKind.REBOOTED:
            self._spawn(self._rebooted_by_itself(event.id), f"{event.id.key} rebooted")

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _stopped_by_itself(self, machine: MachineId) -> None:
        async with self._core.hold(machine):
            if self._core.driver.status(machine).is_running:
                return
            try:
                loaded = await self._core.load(machine.project, machine.name)
            except NotFound:
                return
            await self.after_stop(loaded)
            self._core.tell("instance-shutdown", loaded.record, caller=DAEMON)
            if loaded.record.ephemeral and not self.shutting_down:
                await self._delete_held(machine.project, machine.name)

    async def discard(self, machine: MachineId) -> None:
        """Delete an ephemeral instance that stopped while no daemon looked."""
        async with self._core.hold(machine):
            if not self._core.driver.status(machine).is_running:
                await self._delete_held(machine.project, machine.name)

    async def _rebooted_by_itself(self, machine: MachineId) -> None:
        """The driver has it up again as it was launched. Limits that were changed since, and devices that were added, are not
        in that launch: it gets a new one, before its init has come far."""
        async with self._core.hold(machine):
            try:
                loaded = await self._core.load(machine.project, machine.name)
                await self._restart_held(loaded, timeout=0, force=True)
            except NotFound:
                return
            except AtollError as error:
                log.error("Instance %s did not come up again after a reboot: %s", machine.key, error)
                return
            self._core.tell("instance-restarted", loaded.record, caller=DAEMON)

    async def settle(self) -> None:
        """Wait for what `on_event` began."""
        while self._background:
            await asyncio.wait(self._background)
