"""Facts about any interface of the host, managed or not, in the contract's shapes."""

from __future__ import annotations

from pathlib import Path

from atoll.drivers.instance.contract import NicState
from atoll.drivers.network.contract import NetworkState
from atoll.host import netlink, threads
from atoll.host.rtnetlink import Link

SYS_NET = Path("/sys/class/net")


async def state(name: str) -> NetworkState:
    """For GET /1.0/networks/NAME/state. NotFound if there is no such interface."""
    return await threads.in_thread(_state, name)


def nic_state(link: Link) -> NicState:
    """A link of the host as the contract describes one."""
    return NicState(
        name=link.name,
        host_name="",
        hwaddr=link.hwaddr,
        mtu=link.mtu,
        up=link.up,
        kind=link.medium,
        addresses=[each.wire() for each in link.addresses],
        counters=link.counters,
    )


def ports(bridge: str) -> list[str]:
    """The interfaces attached to a bridge."""
    folder = SYS_NET / bridge / "brif"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def _state(name: str) -> NetworkState:
    link = netlink.link(name)
    return NetworkState(nic_state(link), _bridge(name) if link.kind == "bridge" else {})


def _bridge(name: str) -> dict[str, object]:
    """The members of LXD's NetworkStateBridge; delays in hundredths of a second, as the kernel has them."""
    return {
        "id": _read(name, "bridge_id"),
        "stp": _read(name, "stp_state") not in ("", "0"),
        "forward_delay": int(_read(name, "forward_delay") or 0),
        "vlan_default": int(_read(name, "default_pvid") or 0),
        "vlan_filtering": _read(name, "vlan_filtering") == "1",
        "upper_devices": ports(name),
    }


def _read(name: str, attribute: str) -> str:
    """An attribute of a bridge; empty where this kernel has none of that name."""
    try:
        return (SYS_NET / name / "bridge" / attribute).read_text().strip()
    except OSError:
        return ""
