"""A network that exists in a file only: for tests of the services, and for hosts where nothing may be changed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from atoll.domain.errors import NotFound
from atoll.drivers.instance.contract import NicState
from atoll.drivers.network import addresses
from atoll.drivers.network.bridge import dhcp
from atoll.drivers.network.bridge.settings import DnsMode, check_nic, parse
from atoll.drivers.network.contract import Lease, Network, NetworkState, Reservation
from atoll.host import dnsmasq, threads

_HWADDR = "00:16:3e:00:00:01"


class SimNetwork:
    """Takes the configuration of a bridge and changes nothing outside its own folder."""

    name = "sim"

    def __init__(self, network: Network) -> None:
        self._folder = network.state_dir
        self._file = network.state_dir / "sim.json"
        self._settings = parse(network.name, network.config)

    @classmethod
    async def defaults(cls, name: str, config: Mapping[str, str], *, new: bool) -> Mapping[str, str]:
        """As of a bridge, on a host without routes."""
        filled = dict(config)
        for version in (4, 6):
            key = f"ipv{version}.address"
            if filled.get(key) == "auto" or (new and not filled.get(key)):
                filled[key] = str(addresses.free_subnet(version, []))
                if new:
                    filled.setdefault(f"ipv{version}.nat", "true")
        return filled

    @classmethod
    def validate(cls, name: str, config: Mapping[str, str]) -> None:
        """As of a bridge."""
        parse(name, {key: "none" if text == "auto" else text for key, text in config.items()})

    async def start(self, reservations: Sequence[Reservation]) -> None:
        """Write the file."""
        await threads.in_thread(self._write, reservations)

    async def update(self, config: Mapping[str, str], reservations: Sequence[Reservation]) -> None:
        """Write the file anew."""
        self._settings = parse(self._settings.name, config)
        await threads.in_thread(self._write, reservations)

    async def stop(self) -> None:
        """Remove file and folder."""
        await threads.in_thread(self._remove)

    async def reserve(self, reservations: Sequence[Reservation]) -> None:
        """Write the file anew."""
        await threads.in_thread(self._write, reservations)

    async def leases(self, reservations: Sequence[Reservation]) -> Sequence[Lease]:
        """Gateway and static leases; nobody ever asks for a dynamic one."""
        return dhcp.leases(self._settings, dnsmasq.Leases(), reservations)

    async def state(self) -> NetworkState:
        """An interface that never carried a packet."""
        if not await threads.in_thread(self._file.exists):
            raise NotFound(f"Network interface {self._settings.name!r} not found")
        found = [
            ("inet" if entry.version == 4 else "inet6", str(entry.ip), entry.network.prefixlen, "global")
            for entry in (family.interface for family in self._settings.families)
            if entry is not None
        ]
        return NetworkState(NicState(self._settings.name, "", _HWADDR, self._settings.mtu, True, "broadcast", found, {}))

    async def repair(self) -> Sequence[str]:
        """The file, if somebody removed it."""
        if await threads.in_thread(self._file.exists):
            return []
        await threads.in_thread(self._write, ())
        return [f"Restored network {self._settings.name}"]

    @property
    def names_guests(self) -> bool:
        """As of a bridge."""
        return self._settings.dns_mode is not DnsMode.NONE

    def describe_nic(self, device: Mapping[str, str]) -> Mapping[str, str]:
        """As of a bridge."""
        return {"nictype": "bridged", "parent": self._settings.name, "mtu": str(self._settings.mtu)}

    def check_nic(self, device: Mapping[str, str]) -> None:
        """As of a bridge."""
        check_nic(self._settings, device)

    def _write(self, reservations: Sequence[Reservation]) -> None:
        self._folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._file.write_text(json.dumps(dhcp.hosts(self._settings, reservations)))

    def _remove(self) -> None:
        self._file.unlink(missing_ok=True)
        if self._folder.is_dir():
            self._folder.rmdir()
