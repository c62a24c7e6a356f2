"""The network driver `bridge`: an interface with addresses, a firewall table and a dnsmasq, each kept as it should be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from atoll.domain.errors import AtollError
from atoll.domain.undo import Reverter
from atoll.drivers.network import addresses, links
from atoll.drivers.network.bridge import dhcp, firewall, interface, release
from atoll.drivers.network.bridge.settings import DnsMode, Settings, check_nic, parse
from atoll.drivers.network.contract import Lease, Network, NetworkState, Reservation
from atoll.host import netlink, nftables, sysctl, threads
from atoll.host.dnsmasq import Dnsmasq
from atoll.host.nftables import Family


class BridgeDriver:
    """One managed bridge."""

    name = "bridge"

    def __init__(self, network: Network) -> None:
        self._folder = network.state_dir
        self._settings = parse(network.name, network.config)
        self._reservations: tuple[Reservation, ...] = ()
        self._server = Dnsmasq(network.state_dir)

    @classmethod
    async def defaults(cls, name: str, config: Mapping[str, str], *, new: bool) -> Mapping[str, str]:
        """See the contract. Subnets of one call do not overlap each other or any local route."""
        filled = dict(config)
        taken = [route.destination for route in await threads.in_thread(netlink.routes)]
        for version in (4, 6):
            key = f"ipv{version}.address"
            if new and not filled.get(key) and (version == 4 or sysctl.has_ipv6()):
                filled[key] = "auto"
            if filled.get(key) != "auto":
                continue
            filled[key] = str(addresses.free_subnet(version, taken))
            if new and not filled.get(f"ipv{version}.nat"):
                filled[f"ipv{version}.nat"] = "true"
        return filled

    @classmethod
    def validate(cls, name: str, config: Mapping[str, str]) -> None:
        """See the contract. `auto` stands for some valid address."""
        examples = {"ipv4.address": "10.0.0.1/24", "ipv6.address": "fd42::1/64"}
        parse(name, {key: examples.get(key, text) if text == "auto" else text for key, text in config.items()})

    async def start(self, reservations: Sequence[Reservation]) -> None:
        """Bring it up or adopt it; what was made anew here is removed again on failure."""
        async with Reverter(f"start network {self._settings.name}") as undo:
            if await interface.ensure(self._settings, self._folder):
                undo.add(self._take_down, self._settings)
            await self._serve(self._settings, reservations)
            undo.success()

    async def update(self, config: Mapping[str, str], reservations: Sequence[Reservation]) -> None:
        """Change to that configuration, on failure back to the old."""
        old, new, known = self._settings, parse(self._settings.name, config), self._reservations
        async with Reverter(f"update network {old.name}") as undo:
            undo.add(self._change, new, old, known)
            await self._change(old, new, reservations)
            undo.success()

    async def stop(self) -> None:
        """Take it down and remove its files."""
        await self._take_down(self._settings)
        await threads.in_thread(self._remove_folder)

    async def reserve(self, reservations: Sequence[Reservation]) -> None:
        """Tell dnsmasq; a lease of a NIC that is gone is given back."""
        gone = await self._server.set_hosts(self._hosts(self._settings, reservations))
        self._reservations = tuple(reservations)
        await self._release(gone - {entry.hwaddr for entry in reservations})

    async def leases(self, reservations: Sequence[Reservation]) -> Sequence[Lease]:
        """All leases."""
        return dhcp.leases(self._settings, await self._server.leases(), reservations)

    async def state(self) -> NetworkState:
        """Facts of the interface."""
        return await links.state(self._settings.name)

    async def repair(self) -> Sequence[str]:
        """Mend interface, firewall and dnsmasq, each only when it is not as it should be."""
        settings, name, done = self._settings, self._settings.name, []
        if not await interface.intact(settings):
            await interface.ensure(settings, self._folder)
            done.append(f"Restored the interface of network {name}")
        table = firewall.table(settings)
        if table is not None and not await nftables.intact(table):
            await nftables.replace(table)
            done.append(f"Restored the firewall rules of network {name}")
        if settings.serves and await self._server.ensure(dhcp.options(settings), settings.raw_dnsmasq):
            done.append(f"Restarted the DHCP and DNS server of network {name}")
        return done

    @property
    def names_guests(self) -> bool:
        """Unless DNS is off."""
        return self._settings.dns_mode is not DnsMode.NONE

    def describe_nic(self, device: Mapping[str, str]) -> Mapping[str, str]:
        """What NICs inherit."""
        return {"nictype": "bridged", "parent": self._settings.name, "mtu": str(self._settings.mtu)}

    def check_nic(self, device: Mapping[str, str]) -> None:
        """It has to be able to get its address."""
        check_nic(self._settings, device)

    async def _change(self, old: Settings, new: Settings, reservations: Iterable[Reservation]) -> None:
        await interface.ensure(new, self._folder, old)
        await self._serve(new, reservations)
        self._settings = new

    async def _serve(self, settings: Settings, reservations: Iterable[Reservation]) -> None:
        """Firewall, reservations and dnsmasq of these settings."""
        known = tuple(reservations)
        await self._set_firewall(settings)
        await self._server.set_hosts(self._hosts(settings, known))
        if settings.serves:
            await self._server.ensure(dhcp.options(settings), settings.raw_dnsmasq)
        else:
            await self._server.forget()
        self._reservations = known

    async def _set_firewall(self, settings: Settings) -> None:
        table = firewall.table(settings)
        if table is None:
            await nftables.remove(Family.INET, firewall.table_name(settings.name))
        else:
            await nftables.replace(table)

    def _hosts(self, settings: Settings, reservations: Iterable[Reservation]) -> dict[str, str]:
        return dhcp.hosts(settings, reservations) if settings.serves else {}

    async def _release(self, hwaddrs: set[str]) -> None:
        """Give leases of these clients back; the server has to run for that."""
        if not hwaddrs or await self._server.pid() is None:
            return
        given = await self._server.leases()
        lines = [line for line in given.lines if dhcp.mac_of(line) in hwaddrs]
        if lines:
            server = str(self._settings.v4.interface.ip) if self._settings.v4.interface else ""
            await release.send(self._settings.name, server, given.server_duid, lines)

    async def _take_down(self, settings: Settings) -> None:
        """Server, firewall, interface: each step is tried whatever the one before did; the first error is raised."""
        first: AtollError | None = None
        for step in (
            self._server.forget,
            partial(nftables.remove, Family.INET, firewall.table_name(settings.name)),
            partial(interface.delete, settings),
        ):
            try:
                await step()
            except AtollError as error:
                first = first or error
        if first is not None:
            raise first

    def _remove_folder(self) -> None:
        if self._server.hosts.is_dir():
            for path in self._server.hosts.iterdir():
                path.unlink(missing_ok=True)
            self._server.hosts.rmdir()
        if self._folder.is_dir():
            self._folder.rmdir()
