"""Networks: managed ones (create, change, rename, delete, leases, state) and a view of the host's other interfaces."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from atoll import config as keys
from atoll.db import networks as rows
from atoll.db import projects as project_rows
from atoll.db.engine import Database, Transaction
from atoll.domain import macs, names
from atoll.domain.caller import Caller
from atoll.domain.entities import DEFAULT_PROJECT, Instance, Network
from atoll.domain.errors import AtollError, BadRequest, Conflict, NotFound
from atoll.domain.paths import Paths
from atoll.domain.undo import Reverter
from atoll.drivers import network as drivers
from atoll.drivers.network import contract, links
from atoll.drivers.network.contract import Lease, NetworkDriver, NetworkState, Reservation
from atoll.host import netlink
from atoll.host.rtnetlink import Link
from atoll.host.threads import in_thread
from atoll.services import nic_register
from atoll.services.events import EventHub, with_project
from atoll.services.instances.expand import Expanded
from atoll.services.locks import KeyedLocks
from atoll.services.warnings import WarningService

log = logging.getLogger(__name__)

REPAIR_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class NetworkView:
    """A network as it is listed: a managed one's record, or just an interface of the host."""

    name: str
    type: str
    managed: bool
    project: str
    description: str
    status: str
    config: Mapping[str, str]


class NetworkService:
    """Use cases of networks."""

    def __init__(self, database: Database, hub: EventHub, paths: Paths, warnings: WarningService) -> None:
        self._database = database
        self._hub = hub
        self._paths = paths
        self._warnings = warnings
        self._up: dict[str, NetworkDriver] = {}
        self._register = nic_register.NicRegister()
        self._locks = KeyedLocks()
        self._repairing: asyncio.Task[None] | None = None

    # --- start and stop of the daemon ----------------------------------------------------------------------------------

    async def start(self, instances: list[tuple[Instance, Expanded]]) -> None:
        """Bring up all networks with the reservations of these instances; one that fails leaves the others working."""
        async with self._database.read() as tx:
            networks = await rows.find_all(tx)
        for record, expanded in sorted(instances, key=lambda each: each[0].id):  # of NICs in conflict the older one's is served
            self._register.put(record, expanded, {})
        for network in networks:
            url = f"/1.0/networks/{network.name}"
            driver = self._make(network)
            try:
                await driver.start(self._served(network.name, driver))
            except AtollError as error:
                log.error("Network %s is not available: %s", network.name, error)
                await self._warnings.raise_("Network unavailable", "high", str(error), project=network.project, entity_url=url)
            else:
                self._up[network.name] = driver
                await self._warnings.resolve("Network unavailable", project=network.project, entity_url=url)
        self._repairing = asyncio.create_task(self._repair_for_ever(), name="network repair")

    async def stop(self) -> None:
        """The daemon ends: networks go on serving."""
        if self._repairing is not None:
            self._repairing.cancel()
            await asyncio.wait([self._repairing])

    async def _repair_for_ever(self) -> None:
        while True:
            await asyncio.sleep(REPAIR_SECONDS)
            for name, driver in list(self._up.items()):
                async with self._locks.hold(name):
                    try:
                        for repaired in await driver.repair():
                            log.warning("Network %s: %s", name, repaired)
                    except AtollError as error:
                        log.error("Network %s can't be repaired: %s", name, error)

    def _make(self, network: Network) -> NetworkDriver:
        spec = contract.Network(
            network.project, network.name, network.config, self._paths.networks / network.name, network.description
        )
        return drivers.REGISTRY.create(network.type, spec)

    # --- looking -------------------------------------------------------------------------------------------------------

    async def find_all(self, project: str) -> list[NetworkView]:
        """Managed networks of a project; in a project that has no networks of its own, those of the default one, and the
        host's other interfaces."""
        async with self._database.read() as tx:
            owner = await self._owner(tx, project)
            managed = await rows.find_all(tx, owner)
            taken = {network.name for network in await rows.find_all(tx)}
        views = [self._managed_view(network) for network in managed]
        if owner == DEFAULT_PROJECT:
            views += [
                NetworkView(link.name, _type_of(link), False, "", "", "", {})
                for link in (await in_thread(netlink.links)).values()
                if link.name not in taken and link.kind != "veth"
            ]
        return sorted(views, key=lambda view: view.name)

    async def find(self, project: str, name: str) -> NetworkView:
        """One network, or interface of the host. NotFound if there is none."""
        found = next((view for view in await self.find_all(project) if view.name == name), None)
        if found is None:
            raise NotFound("Network not found")
        return found

    def _managed_view(self, network: Network) -> NetworkView:
        status = "Created" if network.name in self._up else "Unavailable"
        return NetworkView(network.name, network.type, True, network.project, network.description, status, network.config)

    async def _owner(self, tx: Transaction, project: str) -> str:
        if project == DEFAULT_PROJECT:
            return project
        return (await project_rows.find(tx, project)).owner_of("networks")

    async def used_by(self, names_: list[str]) -> dict[str, list[str]]:
        """By network name, URLs of the instances and profiles that have a NIC on it."""
        async with self._database.read() as tx:
            found = await tx.query(
                """SELECT DISTINCT c.value, 'instances', instances.name, projects.name FROM instances_devices_config c
                JOIN instances_devices d ON d.id = c.instance_device_id JOIN instances ON instances.id = d.instance_id
                JOIN projects ON projects.id = instances.project_id WHERE c.key IN ('network', 'parent')
                UNION SELECT DISTINCT c.value, 'profiles', profiles.name, projects.name FROM profiles_devices_config c
                JOIN profiles_devices d ON d.id = c.profile_device_id JOIN profiles ON profiles.id = d.profile_id
                JOIN projects ON projects.id = profiles.project_id WHERE c.key IN ('network', 'parent')
                UNION SELECT DISTINCT c.value, 'instances', instances.name, projects.name FROM profiles_devices_config c
                JOIN profiles_devices d ON d.id = c.profile_device_id
                JOIN instances_profiles ip ON ip.profile_id = d.profile_id JOIN instances ON instances.id = ip.instance_id
                JOIN projects ON projects.id = instances.project_id WHERE c.key IN ('network', 'parent') ORDER BY 1, 2, 4, 3"""
            )
        users: dict[str, list[str]] = {name: [] for name in names_}
        for network, kind, name, project in found:
            if network in users:
                users[network].append(with_project(f"/1.0/{kind}/{name}", project))
        return users

    # --- managing ------------------------------------------------------------------------------------------------------

    async def create(
        self, project: str, name: str, kind: str, description: str, config: Mapping[str, str], *, caller: Caller
    ) -> None:
        """Make the network on the host with its row."""
        names.network(name)
        kind = kind or "bridge"
        driver_class = drivers.REGISTRY.find(kind)
        keys.network_table(kind).validate(config)
        async with self._locks.hold(name), Reverter(f"create network {name}") as undo:
            async with self._database.read() as tx:
                owner = await self._owner(tx, project)
                if any(network.name == name for network in await rows.find_all(tx)):
                    raise BadRequest("The network already exists")
            if netlink.exists(name):
                raise BadRequest(f"An interface named {name!r} already exists on the host")
            full = dict(await driver_class.defaults(name, config, new=True))
            driver_class.validate(name, full)
            keys.network_table(kind).validate(full)
            draft = Network(0, owner, name, kind, description, "Created", full)
            driver = self._make(draft)
            await driver.start([])
            undo.add(driver.stop)
            async with self._database.write() as tx:
                await rows.create(tx, owner, name, kind, description, full, state="Created")
            self._up[name] = driver
            undo.success()
        self._hub.lifecycle("network-created", f"/1.0/networks/{name}", project=owner, caller=caller)

    async def update(self, project: str, name: str, description: str, config: Mapping[str, str], *, caller: Caller) -> None:
        """Replace description and configuration, on the host too."""
        async with self._locks.hold(name):
            async with self._database.read() as tx:
                network = await rows.find(tx, await self._owner(tx, project), name)
            table = keys.network_table(network.type)
            table.validate(config)
            driver_class = drivers.REGISTRY.find(network.type)
            full = dict(await driver_class.defaults(name, config, new=False))
            driver_class.validate(name, full)
            driver = self._up.get(name) or self._make(network)
            async with Reverter(f"update network {name}") as undo:
                if full != dict(network.config) or name not in self._up:
                    await driver.update(full, self._served(name, driver))
                    undo.add(driver.update, network.config, self._served(name, driver))
                async with self._database.write() as tx:
                    await rows.update(tx, network.id, description, full)
                self._up[name] = driver
                undo.success()
        self._hub.lifecycle("network-updated", f"/1.0/networks/{name}", project=network.project, caller=caller)

    async def rename(self, project: str, name: str, new: str, *, caller: Caller) -> None:
        """Only an unused one; its interface is made anew under the new name."""
        names.network(new)
        async with self._locks.hold(name, new):
            network = await self._unused(project, name, "renamed")
            if netlink.exists(new):
                raise Conflict(f"An interface named {new!r} already exists on the host")
            old_driver = self._up.get(name) or self._make(network)
            renamed = Network(network.id, network.project, new, network.type, network.description, network.state, network.config)
            driver = self._make(renamed)
            async with Reverter(f"rename network {name}") as undo:
                await old_driver.stop()
                undo.add(old_driver.start, [])
                await driver.start([])
                undo.add(driver.stop)
                async with self._database.write() as tx:
                    await rows.rename(tx, network.id, new)
                undo.success()
            self._up.pop(name, None)
            self._up[new] = driver
        self._hub.lifecycle(
            "network-renamed", f"/1.0/networks/{new}", project=network.project, context={"old_name": name}, caller=caller
        )

    async def delete(self, project: str, name: str, *, caller: Caller) -> None:
        """Only an unused one."""
        async with self._locks.hold(name):
            network = await self._unused(project, name, "deleted")
            driver = self._up.get(name) or self._make(network)
            await driver.stop()
            self._up.pop(name, None)
            async with self._database.write() as tx:
                await rows.delete(tx, network.id)
        self._hub.lifecycle("network-deleted", f"/1.0/networks/{name}", project=network.project, caller=caller)

    async def _unused(self, project: str, name: str, what: str) -> Network:
        async with self._database.read() as tx:
            network = await rows.find(tx, await self._owner(tx, project), name)
        if users := (await self.used_by([name]))[name]:
            raise BadRequest(f"The network is currently in use and can't be {what}", hint=f"used by {users[0]}")
        return network

    # --- serving instances ---------------------------------------------------------------------------------------------

    async def inherit(self, tx: Transaction, project: str, device: Mapping[str, str]) -> Mapping[str, str]:
        """A NIC device with what it inherits from its managed network; other devices as they are."""
        driver = await self._driver_of(tx, project, device)
        return device if driver is None else {**driver.describe_nic(device), **device}

    async def check_nic(self, tx: Transaction, project: str, device: Mapping[str, str]) -> None:
        """BadRequest for a NIC device with an address that its network cannot give it, be that named or only its bridge; the
        device's keys are valid."""
        driver = await self._driver_of(tx, project, device)
        if driver is None and device.get("nictype") == "bridged":
            driver = self._up.get(device.get("parent", ""))
        if driver is not None:
            driver.check_nic(device)

    async def _driver_of(self, tx: Transaction, project: str, device: Mapping[str, str]) -> NetworkDriver | None:
        """Of the managed network that a NIC device names; None for other devices."""
        if device.get("type") != "nic" or not device.get("network"):
            return None
        network = await rows.find(tx, await self._owner(tx, project), device["network"])
        return self._up.get(network.name) or self._make(network)

    def require_free(self, record: Instance, expanded: Expanded, devices: Mapping[str, str]) -> None:
        """Conflict if a NIC of those devices, by name with what is being done to each, is about to have an address or a name that
        another NIC has on its bridge."""
        own = nic_register.nics_of(record, expanded, {})
        for name, action in devices.items():
            key = (record.project, record.name, name)
            if key not in own:
                continue
            driver = self._up.get(own[key].network)
            if found := self._register.conflict(key, own, named=driver is not None and driver.names_guests):
                raise Conflict(f'Failed {action} validation for device "{name}": {found}')

    def new_hwaddr(self) -> str:
        """A MAC address for a NIC: a random one that no other NIC on a bridge has."""
        while self._register.has(found := macs.random()):
            pass
        return found

    async def reserve(self, record: Instance, expanded: Expanded, volatile: Mapping[str, str]) -> None:
        """The instance's NICs have these addresses: tell DHCP and DNS of every managed network that it is on."""
        await self._tell(self._register.put(record, expanded, volatile))

    async def release(self, project: str, instance: str) -> None:
        """The instance is gone, or got another name: forget its reservations."""
        await self._tell(self._register.drop(project, instance))

    async def _tell(self, bridges: set[str]) -> None:
        """DHCP and DNS of those that are managed."""
        for name in bridges & set(self._up):
            async with self._locks.hold(name):
                if driver := self._up.get(name):
                    await driver.reserve(self._served(name, driver))

    def _served(self, network: str, driver: NetworkDriver) -> list[Reservation]:
        return self._register.served(network, named=driver.names_guests)

    async def leases(self, project: str, name: str) -> list[Lease]:
        """Addresses in use on a managed network, as that project sees them."""
        async with self._database.read() as tx:
            network = await rows.find(tx, await self._owner(tx, project), name)
        driver = self._up.get(network.name)
        if driver is None:
            raise Conflict(f"Network {name!r} is not available")
        return list(await driver.leases(self._served(name, driver)))

    async def state(self, project: str, name: str) -> NetworkState:
        """Facts of a network's interface, or of any interface of the host."""
        view = await self.find(project, name)
        driver = self._up.get(name)
        if view.managed and driver is not None:
            return await driver.state()
        return await links.state(name)


def _type_of(link: Link) -> str:
    """LXD's word for the type of an interface that is not managed."""
    if link.medium == "loopback":
        return "loopback"
    if link.kind in ("bridge", "bond", "vlan"):
        return link.kind
    return "unknown" if link.kind else "physical"
