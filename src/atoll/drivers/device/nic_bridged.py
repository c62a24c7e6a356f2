"""`nictype: bridged`: a veth pair with the host's end on a bridge, managed (`network`) or not (`parent`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from atoll.config import devices
from atoll.domain.errors import BadRequest, HostError, Unsupported
from atoll.drivers.device import nic_filters
from atoll.drivers.device.contract import DeviceContext, Prepared
from atoll.drivers.device.nic_veth import VethNic, live_keys
from atoll.drivers.instance.contract import NicSpec
from atoll.host import iproute, netlink, nftables, sysctl, threads
from atoll.host.iproute import Change
from atoll.host.nftables import Family

_SYS_NET = Path("/sys/class/net")
_TABLE = devices.device_table("nic", "bridged")


class BridgedNic(VethNic):
    """Filters are in place before the guest runs; what needs the interface follows in `started`."""

    nictype = "bridged"
    live = live_keys(_TABLE)

    def validate(self, context: DeviceContext) -> None:
        """See the contract."""
        super().validate(context)
        untagged, tagged = _TABLE.get(context.config, "vlan"), _TABLE.get(context.config, "vlan.tagged") or ()
        if untagged in tagged:
            raise BadRequest(f"Device {context.name!r}: VLAN {untagged} cannot be both vlan and in vlan.tagged")
        if (untagged or tagged) and any(_TABLE.flag(context.config, f"security.ipv{v}_filtering") for v in (4, 6)):
            raise BadRequest(f"Device {context.name!r}: IP filtering cannot be used together with VLANs")

    async def prepare(self, context: DeviceContext) -> Prepared:
        """Names, address and filters."""
        prepared = await super().prepare(context)
        (spec,) = prepared.nics
        await _set_filter(nic_filters.wanted(context.config, spec.host_name, spec.hwaddr))
        return prepared

    async def started(self, context: DeviceContext) -> None:
        """Port settings, filters, limits and routes; idempotent."""
        host_name = self.host_name(context)
        await threads.in_thread(_set_port, host_name, isolated=_TABLE.flag(context.config, "security.port_isolation"))
        await iproute.bridge(vlan_changes(context.config, host_name, await threads.in_thread(_default_vlan, context)))
        await _set_filter(self._filter(context, context.config))
        await super().started(context)

    async def update(self, context: DeviceContext, old: Mapping[str, str]) -> None:
        """Filters, limits and routes that changed; a new filter takes the old one's place atomically."""
        before, after = self._filter(context, old), self._filter(context, context.config)
        if before != after:
            await _set_filter(after)
            if after is None:
                await _drop_filter(self.host_name(context))
        await super().update(context, old)

    async def release(self, context: DeviceContext) -> Mapping[str, str]:
        """The pair first, then its filter: it is never unfiltered. Routes lead out of the bridge and have to be taken back."""
        changed = await super().release(context)
        host_name = self.host_name(context)
        if host_name and self._filter(context, context.config) is not None:
            await _drop_filter(host_name)
        await self.drop_routes(self.route_link(context), self.routes(context.config))
        return changed

    def spec(self, context: DeviceContext) -> NicSpec:
        """On the bridge, and with its MTU where the device has none of its own."""
        parent = context.config.get("parent", "")
        if not netlink.exists(parent):
            raise HostError(f"Device {context.name!r}: parent interface {parent!r} does not exist on the host")
        spec = super().spec(context)
        return replace(spec, bridge=parent, mtu=spec.mtu or _mtu(parent))

    def route_link(self, context: DeviceContext) -> str:
        """Routes lead to the bridge: the guest answers for the subnet there."""
        return context.config.get("parent", "")

    def _filter(self, context: DeviceContext, config: Mapping[str, str]) -> nic_filters.Filter | None:
        hwaddr = config.get("hwaddr") or context.volatile.get("hwaddr", "")
        host_name = self.host_name(context)
        return nic_filters.wanted(config, host_name, hwaddr) if hwaddr and host_name else None


async def _set_filter(wish: nic_filters.Filter | None) -> None:
    if wish is not None:
        await nftables.replace(nic_filters.table(wish))


async def _drop_filter(host_name: str) -> None:
    await nftables.remove(Family.BRIDGE, nic_filters.table_name(host_name))


def _mtu(parent: str) -> int:
    try:
        return int((_SYS_NET / parent / "mtu").read_text())
    except OSError:
        return 0


def _set_port(host_name: str, *, isolated: bool) -> None:
    """No IPv6 address of the host on the guest's wire; isolation from other isolated ports."""
    sysctl.set_interface("ipv6", host_name, "disable_ipv6", "1")
    switch = _SYS_NET / host_name / "brport/isolated"
    if switch.exists():
        switch.write_text("1" if isolated else "0")
    elif isolated:
        raise Unsupported(f"Ports of the bridge of {host_name!r} cannot be isolated")


def _default_vlan(context: DeviceContext) -> int:
    """The VLAN that ports of the bridge are in without doing; 0 where none is asked for. Unsupported without VLAN filtering."""
    if not context.config.get("vlan") and not context.config.get("vlan.tagged"):
        return 0
    folder = _SYS_NET / context.config.get("parent", "") / "bridge"
    try:
        filtering = (folder / "vlan_filtering").read_text().strip() == "1"
        default = int((folder / "default_pvid").read_text())
    except OSError as error:
        raise Unsupported(f"Device {context.name!r}: this kernel's bridges know no VLANs") from error
    if not filtering:
        raise HostError(f"Device {context.name!r}: VLAN filtering is not enabled on the parent bridge")
    return default


def vlan_changes(config: Mapping[str, str], host_name: str, default: int) -> list[Change]:
    """Out of the default VLAN if another or none is asked for, and into those asked for. Pure."""
    untagged, tagged = _TABLE.get(config, "vlan"), _TABLE.get(config, "vlan.tagged") or ()
    steps: list[Change] = []
    if untagged and default and untagged != default:
        steps.append(("vlan", "del", "dev", host_name, "vid", str(default)))
    if untagged and untagged != "none" and untagged != default:
        steps.append(("vlan", "add", "dev", host_name, "vid", str(untagged), "pvid", "untagged", "master"))
    return steps + [("vlan", "add", "dev", host_name, "vid", str(number), "master") for number in tagged]
