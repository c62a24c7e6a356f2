"""The daemon's life: the order in which its parts start and stop.

Start: databases and drivers, then pools, networks and instances, so that the API answers only when all of what was half done has
been repaired; then what should run is started. Stop: the API first, operations get a little time, instances are left alone
unless the host goes down.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from atoll.api import dispatch
from atoll.api.cors import Cors
from atoll.api.guest.app import GuestApi
from atoll.api.guest.door import GuestDoor
from atoll.api.route import Route
from atoll.api.routes.internal import InternalRoutes
from atoll.api.routes.metrics import served_apart
from atoll.db import schema
from atoll.domain.paths import Paths
from atoll.drivers.instance.contract import DriverInfo
from atoll.runtime import routes, upkeep
from atoll.runtime.parts import Parts
from atoll.services.events import LogForwarder
from atoll.services.guest.service import GuestService
from atoll.services.instances.backup_yaml import BackupYaml
from atoll.services.proxies import Proxies
from atoll.services.server import ServerInfo, StorageInfo
from atoll.services.sql import SqlService
from atoll.version import ATOLL_VERSION

log = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0


class Daemon(Parts):
    """One daemon on one state directory. `end` is set when it shall stop; `ready` when those instances run that should."""

    def __init__(self, paths: Paths, *, driver: str = "lxc") -> None:
        super().__init__(paths, driver=driver)
        self.end = asyncio.Event()
        self.ready = False
        self._stop_steps: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        self._background: set[asyncio.Task[None]] = set()

    # --- start ---------------------------------------------------------------------------------------------------------

    async def start(self, *, group: str) -> None:
        """Bring everything up; when it returns, the API answers and what was half done is repaired."""
        await self._open_databases()
        await self.tls.open()
        logging.getLogger().addHandler(LogForwarder(self.hub, asyncio.get_running_loop()))
        info = await self.driver.open(self.instances.runner.on_event)
        self._on_stop("instance driver", self.driver.close)
        await self.trust.open()
        await self.settings.load()
        Proxies(self.settings)
        await self.certificates.start()
        self._on_stop("certificates", self.certificates.stop)
        await self._repair()
        descriptions = BackupYaml(self.instances.core)
        descriptions.start()
        self._on_stop("descriptions of instances", descriptions.stop)
        await self._listen_to_clients(await self._routes(info), group=group)
        self._on_stop("operations", self._drain)
        self._on_stop("listeners", self.listeners.stop)
        await self._listen_to_guests()
        log.info("Atoll %s is ready in %s", ATOLL_VERSION, self.paths.root)
        self._in_background(self._autostart(), "autostart")
        self._in_background(upkeep.scheduler(self).run(), "scheduler")
        self._in_background(self.instances.lifecycle.guard(), "guard")

    async def _routes(self, info: DriverInfo) -> list[Route]:
        server = ServerInfo(
            self.settings,
            self.tls,
            instance_driver=info,
            storage_drivers=[StorageInfo(name, "1") for name in await self.storage.supported()],
            active_storage=self.storage.active_drivers,
        )
        sql = SqlService(local=self.local_db, shared=self.global_db)
        return routes.table(self, server, InternalRoutes(sql, lambda: self.ready, self.shut_down))

    async def _listen_to_clients(self, table: list[Route], *, group: str) -> None:
        apart = dispatch.build(served_apart(table), self.listeners.authenticate)
        app = dispatch.build(table, self.listeners.authenticate)
        Cors(self.settings).install(app)
        await self.listeners.start(app, group=group, metrics=apart)

    async def _listen_to_guests(self) -> None:
        guest = GuestService(self.instances.core, self.images)
        door = GuestDoor(self.paths.devlxd_socket, guest.identify)
        await door.start(GuestApi(guest, self.guests, door.caller).build())
        self._on_stop("guest API", door.stop)
        self._on_stop("events of guests", self.guests.close)

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
        for sentence in await upkeep.repair(self):
            log.warning("Repaired: %s", sentence)
        listed = await self.instances.core.load_all(None)
        await self.networks.start([(loaded.record, loaded.expanded) for loaded in listed])
        self._on_stop("networks", self.networks.stop)

    # --- stop ----------------------------------------------------------------------------------------------------------

    async def shut_down(self, *, force: bool = False, timeout: float = 0) -> None:
        """See `internal.Shutdown`."""
        try:
            async with asyncio.timeout(timeout if timeout > 0 else None):
                await self.instances.lifecycle.stop_all(force=force)
        except TimeoutError:
            await self.instances.lifecycle.stop_all(force=True)
        asyncio.get_running_loop().call_later(0.05, self.end.set)

    def host_goes_down(self) -> None:
        """SIGPWR, LXD's word for it."""
        self._in_background(self.shut_down(), "host shutdown")

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
