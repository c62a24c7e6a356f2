"""The contract of network drivers.

Vocabulary
    network     a managed network: an interface of the host with what serves it (addresses, DHCP, DNS, NAT, firewall)
    reservation a static lease: what an instance's NIC device shall get, kept in the database and handed to the driver
    lease       an address that is in use, given out by DHCP or static

When called
    `validate` and `defaults` before a row is written (pure but for reading local routes); `start` on creation and on each
    daemon start (idempotent: an intact network is adopted without touching traffic); `update` after a change of
    configuration; `stop` on deletion, and never on daemon shutdown. `reserve` whenever the reservations change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from atoll.drivers.instance.contract import NicState


@dataclass(frozen=True, slots=True)
class Network:
    """A network as its driver sees it. `state_dir` is its own folder for generated files."""

    project: str
    name: str
    config: Mapping[str, str]
    state_dir: Path
    description: str = ""


@dataclass(frozen=True, slots=True)
class Reservation:
    """What DHCP and DNS shall know of one NIC of one instance. Addresses are empty when dynamic."""

    project: str
    instance: str
    device: str
    hwaddr: str
    ipv4: str = ""
    ipv6: str = ""

    @property
    def hostname(self) -> str:
        """The DNS name: the instance's."""
        return self.instance


@dataclass(frozen=True, slots=True)
class Lease:
    """An address in use; `kind` is LXD's word: dynamic, static, gateway."""

    hostname: str
    hwaddr: str
    address: str
    kind: str


@dataclass(frozen=True, slots=True)
class NetworkState:
    """For GET /1.0/networks/NAME/state."""

    nic: NicState
    bridge: Mapping[str, object] = field(default_factory=dict)


class NetworkDriver(Protocol):
    """One object per network, constructed with the Network."""

    name: str

    @classmethod
    async def defaults(cls, name: str, config: Mapping[str, str], *, new: bool) -> Mapping[str, str]:
        """The configuration with `auto` filled in: subnets that no local route covers. For a new network what is left out is
        filled in too, with NAT on for subnets that were chosen here."""

    @classmethod
    def validate(cls, name: str, config: Mapping[str, str]) -> None:
        """BadRequest for combinations that the key tables cannot see, Unsupported for what this driver cannot do."""

    async def start(self, reservations: Sequence[Reservation]) -> None:
        """Bring it up, or adopt what is up. On failure nothing new is left."""

    async def update(self, config: Mapping[str, str], reservations: Sequence[Reservation]) -> None:
        """Change to that configuration, on failure back to the old; instances stay attached."""

    async def stop(self) -> None:
        """Take it down and remove its files."""

    async def reserve(self, reservations: Sequence[Reservation]) -> None:
        """These are now all reservations: tell DHCP and DNS; drop leases of NICs that are gone."""

    async def leases(self, reservations: Sequence[Reservation]) -> Sequence[Lease]:
        """All leases, gateway and static ones too."""

    async def state(self) -> NetworkState:
        """Facts of its interface. NotFound while it is down."""

    async def repair(self) -> Sequence[str]:
        """Look whether server processes and firewall rules are as they should be and mend them; a sentence for each repair."""

    @property
    def names_guests(self) -> bool:
        """Whether its DNS knows instances by their names: then no two NICs may have one."""

    def describe_nic(self, device: Mapping[str, str]) -> Mapping[str, str]:
        """What a NIC device with `network=` this inherits: `nictype`, `parent`, `mtu`."""

    def check_nic(self, device: Mapping[str, str]) -> None:
        """BadRequest for a NIC device, valid by itself, with an address that it could never get here."""
