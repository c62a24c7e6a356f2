"""What every network driver has to do: one function per promise of the contract.

    @pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
    async def test_conformance(check, tmp_path):
        await check(conformance.Subject(MyDriver, tmp_path))

Each check makes a network `name` in a folder of its own and takes it down again; the caller gives it a host, or a network
namespace, on which it may do that.
"""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from atoll.domain.errors import AtollError, BadRequest, NotFound
from atoll.drivers.network.contract import Network, NetworkDriver, Reservation

CONFIG = {"ipv4.address": "10.177.1.1/24", "ipv4.nat": "true", "ipv6.address": "fd42:177:1::1/64"}
OTHER = {"ipv4.address": "10.177.2.1/24", "ipv6.address": "none"}
NIC = Reservation("default", "c1", "eth0", "00:16:3e:11:22:33", ipv4="10.177.1.77")


@dataclass(frozen=True, slots=True)
class Subject:
    """A driver under test."""

    driver: type[NetworkDriver]
    folder: Path
    name: str = "atollconf0"

    def make(self, config: Mapping[str, str] = CONFIG) -> NetworkDriver:
        """A driver object, as a service makes it."""
        create: Callable[[Network], NetworkDriver] = self.driver
        return create(Network("default", self.name, config, self.folder / self.name))

    @asynccontextmanager
    async def started(self) -> AsyncIterator[NetworkDriver]:
        """A network that is up, and down again at the end."""
        driver = self.make()
        await driver.start([])
        try:
            yield driver
        finally:
            await driver.stop()


Check = Callable[[Subject], Awaitable[None]]


async def _addresses(driver: NetworkDriver) -> set[str]:
    return {address for _, address, _, scope in (await driver.state()).nic.addresses if scope == "global"}


async def defaults_fill_what_is_left_out(subject: Subject) -> None:
    """A new network gets a subnet of each family and NAT; what is given stays; an old one gets only what is `auto`."""
    filled = await subject.driver.defaults(subject.name, {"user.color": "red", "ipv6.address": "none"}, new=True)
    assert ipaddress.ip_interface(filled["ipv4.address"]).version == 4
    assert filled["ipv4.nat"] == "true"
    assert (filled["ipv6.address"], filled["user.color"]) == ("none", "red")
    assert await subject.driver.defaults(subject.name, {}, new=False) == {}
    again = await subject.driver.defaults(subject.name, {"ipv6.address": "auto"}, new=False)
    assert ipaddress.ip_interface(again["ipv6.address"]).version == 6
    assert set(again) == {"ipv6.address"}


async def validation_refuses_wrong_values(subject: Subject) -> None:
    """Each of these is the caller's mistake, and none is accepted."""
    subject.driver.validate(subject.name, {"ipv4.address": "auto"})
    for key, text in (
        ("ipv4.address", "10.0.0.1"),
        ("ipv4.address", "10.0.0.1/24\nuser=root"),
        ("ipv6.address", "10.0.0.1/24"),
        ("ipv4.nat", "maybe"),
        ("dns.domain", 'a"b'),
    ):
        try:
            subject.driver.validate(subject.name, {key: text})
        except BadRequest:
            continue
        raise AssertionError(f"{key}={text!r} was accepted")


async def start_is_idempotent(subject: Subject) -> None:
    """Starting what is up changes nothing; its addresses are there."""
    async with subject.started() as driver:
        before = await driver.state()
        await driver.start([])
        after = await driver.state()
        assert await _addresses(driver) == {"10.177.1.1", "fd42:177:1::1"}
        assert (before.nic.hwaddr, before.nic.mtu) == (after.nic.hwaddr, after.nic.mtu)


async def another_object_adopts_it(subject: Subject) -> None:
    """After a restart of the daemon the network is the same and needs no repair."""
    async with subject.started() as first:
        second = subject.make()
        await second.start([])
        assert (await first.state()).nic.hwaddr == (await second.state()).nic.hwaddr
        assert list(await second.repair()) == []


async def leases_name_gateway_and_reservations(subject: Subject) -> None:
    """The gateway always, a reservation as static."""
    async with subject.started() as driver:
        await driver.reserve([NIC])
        leases = {(lease.kind, lease.address): lease for lease in await driver.leases([NIC])}
        assert ("gateway", "10.177.1.1") in leases
        assert leases["static", "10.177.1.77"].hostname == "c1"
        await driver.reserve([])
        assert {lease.kind for lease in await driver.leases([])} == {"gateway"}


async def update_changes_the_subnet(subject: Subject) -> None:
    """The new addresses are there and the old ones are gone."""
    async with subject.started() as driver:
        await driver.update(OTHER, [])
        assert await _addresses(driver) == {"10.177.2.1"}
        assert [lease.address for lease in await driver.leases([])] == ["10.177.2.1"]
        assert list(await driver.repair()) == []


async def refused_update_changes_nothing(subject: Subject) -> None:
    """A configuration that cannot be leaves the old one in force."""
    async with subject.started() as driver:
        try:
            await driver.update({**CONFIG, "ipv4.address": "nonsense"}, [])
        except AtollError:
            assert await _addresses(driver) == {"10.177.1.1", "fd42:177:1::1"}
        else:
            raise AssertionError("the update was accepted")


async def stop_leaves_nothing(subject: Subject) -> None:
    """No interface, no files; stopping twice is no mistake."""
    driver = subject.make()
    await driver.start([NIC])
    await driver.stop()
    await driver.stop()
    assert not (subject.folder / subject.name).exists()
    try:
        await driver.state()
    except NotFound:
        return
    raise AssertionError("the interface is still there")


async def nics_inherit_from_it(subject: Subject) -> None:
    """A NIC device knows its type and parent from the network."""
    inherited = subject.make().describe_nic({"type": "nic", "network": subject.name})
    assert inherited["nictype"]
    assert inherited["parent"] == subject.name
    assert int(inherited["mtu"]) >= 68


async def nics_have_addresses_of_the_subnet(subject: Subject) -> None:
    """What it could not give to a NIC is refused."""
    nic = {"type": "nic", "network": subject.name}
    driver = subject.make()
    for good in ({}, {"ipv4.address": "none", "ipv6.address": "none"}, {"ipv4.address": "10.177.1.20"}):
        driver.check_nic({**nic, **good})
    for wrong in ({"ipv4.address": "10.177.99.20"}, {"ipv4.address": "10.177.1.1"}):
        try:
            driver.check_nic({**nic, **wrong})
        except BadRequest:
            continue
        raise AssertionError(f"accepted: {wrong}")


CHECKS: tuple[Check, ...] = (
    defaults_fill_what_is_left_out,
    validation_refuses_wrong_values,
    start_is_idempotent,
    another_object_adopts_it,
    leases_name_gateway_and_reservations,
    update_changes_the_subnet,
    refused_update_changes_nothing,
    stop_leaves_nothing,
    nics_inherit_from_it,
    nics_have_addresses_of_the_subnet,
)
