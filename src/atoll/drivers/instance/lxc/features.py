"""What liblxc and the kernel can do, under the names that LXD's clients know."""

from __future__ import annotations

from atoll.drivers.instance.contract import DriverInfo
from atoll.host.zygote import Zygote

EXTENSIONS = [
    "cgroup2",
    "core_scheduling",
    "devpts_fd",
    "idmapped_mounts_v2",
    "mount_injection_file",
    "network_gateway_device_route",
    "network_ipvlan",
    "network_l2proxy",
    "network_phys_macvlan_mtu",
    "network_veth_router",
    "pidfd",
    "seccomp_allow_deny_syntax",
    "seccomp_notify",
    "seccomp_proxy_send_notify_fd",
]


async def describe(zygote: Zygote) -> DriverInfo:
    """Ask liblxc, in a worker of the zygote: the daemon itself never loads it. HostError if it cannot be loaded."""
    answer = await zygote.call("describe", {"extensions": EXTENSIONS})
    found = answer.message["extensions"]
    return DriverInfo("lxc", answer.message["version"], {name: str(found[name]).lower() for name in EXTENSIONS})
