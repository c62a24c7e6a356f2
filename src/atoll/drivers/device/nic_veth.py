"""What all NICs that are a veth pair have in common: names, addresses, limits and routes of the host's end."""

from __future__ import annotations

import os
from collections.abc import Mapping

from atoll.config import devices
from atoll.config.table import KeyTable
from atoll.domain import macs, names
from atoll.domain.errors import BadRequest, Conflict, Unsupported
from atoll.drivers.device import nic_limits
from atoll.drivers.device.contract import DeviceContext, Prepared
from atoll.drivers.instance.contract import NicSpec
from atoll.host import iproute, netlink, process
from atoll.host.iproute import Change

_ROUTE_KEYS = ("ipv4.routes", "ipv4.routes.external", "ipv6.routes", "ipv6.routes.external")


def random_host_name() -> str:
    """A name of the host's end that no other has."""
    while netlink.exists(name := f"veth{os.urandom(4).hex()}"):
        pass
    return name


def live_keys(table: KeyTable) -> frozenset[str]:
    """The keys that may change while the machine runs."""
    return frozenset(key.name for key in table.rows() if key.live)


class VethNic:
    """A NIC whose host end has no bridge."""

    nictype = "p2p"
    live = live_keys(devices.device_table("nic", "p2p"))
    hotplug = True

    def validate(self, context: DeviceContext) -> None:
        """See the contract."""
        for key in ("maas.subnet.ipv4", "maas.subnet.ipv6"):
            if context.config.get(key):
                raise Unsupported(f"Device {context.name!r}: MAAS is not supported", hint=f"unset {key}")
        hwaddr = context.config.get("hwaddr", "")
        if hwaddr and int(hwaddr[:2], 16) & 1:
            raise BadRequest(f"Device {context.name!r}: hwaddr {hwaddr!r} is a multicast address")

    async def prepare(self, context: DeviceContext) -> Prepared:
        """Choose names and address. The pair itself is made by the instance driver."""
        spec = self.spec(context)
        volatile = {"host_name": spec.host_name}
        if not context.config.get("hwaddr"):
            volatile["hwaddr"] = spec.hwaddr
        return Prepared(nics=(spec,), volatile=volatile)

    async def started(self, context: DeviceContext) -> None:
        """Limits and routes. Idempotent: it also puts back what somebody flushed."""
        await nic_limits.apply(self.host_name(context), nic_limits.wanted(context.config))
        await iproute.ip(route_changes("replace", self.route_link(context), self.routes(context.config)))

    def attached(self, context: DeviceContext) -> Prepared:
        """Its pair, if it was prepared."""
        host_name = self.host_name(context)
        return Prepared(nics=(_spec(context, host_name),) if host_name else ())

    async def update(self, context: DeviceContext, old: Mapping[str, str]) -> None:
        """Limits and routes that changed."""
        host_name = self.host_name(context)
        before, after = nic_limits.wanted(old), nic_limits.wanted(context.config)
        if before != after:
            await nic_limits.apply(host_name, after, before)
        had, has = self.routes(old), self.routes(context.config)
        link = self.route_link(context)
        await iproute.ip(route_changes("replace", link, [route for route in has if route not in had]))
        await self.drop_routes(link, [route for route in had if route not in has])

    async def release(self, context: DeviceContext) -> Mapping[str, str]:
        """Remove what is left of it on the host; `hwaddr` stays in volatile, so that a guest keeps it for life."""
        host_name = self.host_name(context)
        if host_name:
            await nic_limits.forget(host_name, nic_limits.wanted(context.config))
            if netlink.exists(host_name):
                await iproute.delete_link(host_name)
        return {"host_name": ""}

    def spec(self, context: DeviceContext) -> NicSpec:
        """The pair that the instance driver shall make. Conflict if a configured host name is taken."""
        host_name = context.config.get("host_name", "")
        if host_name and netlink.exists(host_name):
            raise Conflict(f"Device {context.name!r}: the host has an interface {host_name!r} already")
        return _spec(context, host_name or random_host_name())

    def host_name(self, context: DeviceContext) -> str:
        """The host's end of a NIC that was prepared; empty for one that was not."""
        return context.volatile.get("host_name") or context.config.get("host_name", "")

    def route_link(self, context: DeviceContext) -> str:
        """The interface that routes to the guest lead out of."""
        return self.host_name(context)

    def routes(self, config: Mapping[str, str]) -> list[str]:
        """Subnets that the host routes to the guest."""
        table = devices.device_table("nic", self.nictype)
        return [str(subnet) for key in _ROUTE_KEYS if table.find(key) for subnet in table.get(config, key) or ()]

    async def drop_routes(self, link: str, subnets: list[str]) -> None:
        """Remove routes; nothing wrong with those that are gone already."""
        for change in route_changes("del", link, subnets):
            await process.run(["ip", *change], check=False)


def _spec(context: DeviceContext, host_name: str) -> NicSpec:
    guest_name = context.config.get("name") or context.volatile.get("name") or context.name
    return NicSpec(
        device=context.name,
        host_name=host_name,
        guest_name=names.interface(guest_name),
        hwaddr=context.config.get("hwaddr") or context.volatile.get("hwaddr") or macs.random(),
        mtu=int(context.config.get("mtu") or 0),
    )


def route_changes(verb: str, link: str, subnets: list[str]) -> list[Change]:
    """Routes of NICs are of protocol `boot`, which tells them from the routes of a managed network."""
    return [("route", verb, subnet, "dev", link, "proto", "boot") for subnet in subnets]
