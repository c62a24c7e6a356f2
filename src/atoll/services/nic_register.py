"""Which NIC of which instance is on which bridge, with the addresses and the name that it has there.

No two NICs of one bridge (and, where they have one, of one VLAN of it) may have the same. A change that would let them is
refused, and so is a start; but copies, imports, restored snapshots and new instances may well lie in conflict with another
NIC. Then DHCP and DNS know the NIC that was there first, and the other one as soon as that is gone.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from atoll.domain.entities import Instance
from atoll.drivers.network.contract import Reservation
from atoll.services.instances.expand import Expanded

Key = tuple[str, str, str]
"""Project, instance and device."""


@dataclass(frozen=True, slots=True)
class Nic:
    """One NIC on a bridge; `network` is that bridge, managed or not. `claims`: what no other there may have, each as the sentence
    that says so; the first is its name, which counts where DNS knows instances by theirs."""

    network: str
    vlan: str
    reservation: Reservation
    claims: tuple[str, ...]

    def held(self, *, named: bool) -> tuple[str, ...]:
        """The claims that count. `named`: DNS knows names."""
        return self.claims if named else self.claims[1:]


class NicRegister:
    """The NICs of all instances, in the order in which they came to what they have now."""

    def __init__(self) -> None:
        self._nics: dict[Key, Nic] = {}

    def put(self, record: Instance, expanded: Expanded, volatile: Mapping[str, str]) -> set[str]:
        """The instance has these NICs now; see `nics_of`. Names of the bridges on which something changed."""
        before = {key: nic for key, nic in self._nics.items() if key[:2] == (record.project, record.name)}
        after = nics_of(record, expanded, volatile)
        changed = [key for key in {*before, *after} if before.get(key) != after.get(key)]
        for key in changed:
            self._nics.pop(key, None)  # it comes last now: others have longer had what it gets
        self._nics.update(after)
        return {nics[key].network for key in changed for nics in (before, after) if key in nics}

    def drop(self, project: str, instance: str) -> set[str]:
        """The instance is gone, or got another name. Names of the bridges that it was on."""
        gone = [key for key in self._nics if key[:2] == (project, instance)]
        return {self._nics.pop(key).network for key in gone}

    def has(self, hwaddr: str) -> bool:
        """Whether any NIC has that MAC address."""
        return any(nic.reservation.hwaddr.lower() == hwaddr for nic in self._nics.values())

    def served(self, network: str, *, named: bool) -> list[Reservation]:
        """What DHCP and DNS of a bridge shall know: of NICs in conflict only the first one."""
        found: list[Reservation] = []
        taken: dict[str, set[str]] = {}
        for nic in self._nics.values():
            if nic.network == network and nic.reservation.hwaddr:
                claims, seen = nic.held(named=named), taken.setdefault(nic.vlan, set())
                if seen.isdisjoint(claims):
                    seen.update(claims)
                    found.append(nic.reservation)
        return found

    def conflict(self, key: Key, own: Mapping[Key, Nic], *, named: bool) -> str:
        """What another NIC has of that which one of an instance's NICs is about to have; empty if nothing. `own`: all that the
        instance is about to have."""
        nic = own[key]
        wanted = dict.fromkeys(nic.held(named=named))
        others = (*(each for other, each in self._nics.items() if other[:2] != key[:2]), *_without(own, key))
        for other in others:
            if (other.network, other.vlan) == (nic.network, nic.vlan) and not wanted.keys().isdisjoint(other.claims):
                return next(claim for claim in wanted if claim in other.claims)
        return ""


def nics_of(record: Instance, expanded: Expanded, volatile: Mapping[str, str]) -> dict[Key, Nic]:
    """An instance's NICs on bridges. `volatile`: keys that its record does not have yet."""
    found: dict[Key, Nic] = {}
    for name, device in expanded.devices.items():
        network = device.get("network") or device.get("parent", "")
        if device.get("type") != "nic" or device.get("nictype", "bridged") != "bridged" or not network:
            continue
        key = f"volatile.{name}.hwaddr"
        reservation = Reservation(
            record.project,
            record.name,
            name,
            device.get("hwaddr") or volatile.get(key) or record.config.get(key, ""),
            device.get("ipv4.address", ""),
            device.get("ipv6.address", ""),
        )
        found[record.project, record.name, name] = Nic(network, device.get("vlan", ""), reservation, tuple(_claims(reservation)))
    return found


def _claims(reservation: Reservation) -> Iterator[str]:
    yield f'Instance DNS name "{reservation.hostname.lower()}" already used on network'
    if reservation.hwaddr:
        yield f'MAC address "{reservation.hwaddr.lower()}" already defined on another NIC'
    for text in (reservation.ipv4, reservation.ipv6):
        if text and text != "none":
            yield f'IP address "{ipaddress.ip_address(text)}" already defined on another NIC'


def _without(nics: Mapping[Key, Nic], key: Key) -> list[Nic]:
    return [nic for other, nic in nics.items() if other != key]
