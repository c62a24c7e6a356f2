"""Cases of the bridge driver against the real kernel, nft and dnsmasq; `test_network_bridge.py` runs them in a box."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from atoll.domain.errors import AtollError, Conflict, Unsupported
from atoll.drivers.network import conformance, links
from atoll.drivers.network.bridge.driver import BridgeDriver
from atoll.drivers.network.contract import Reservation
from atoll.host import netlink, process

pytestmark = pytest.mark.system

NAME = "atolltest0"
MAC = "00:16:3e:11:22:33"
CONFIG = {
    "ipv4.address": "10.177.1.1/24",
    "ipv4.nat": "true",
    "ipv6.address": "fd42:177:1::1/64",
    "ipv6.nat": "true",
    "dns.domain": "test",
    "raw.dnsmasq": "no-resolv",
}
Shell = Callable[..., str]
Make = Callable[[], BridgeDriver]
MakeGuest = Callable[..., AbstractContextManager[Any]]


def server_pid(folder: Path) -> int:
    return int((folder / NAME / "dnsmasq.pid").read_text())


def disable_ipv6() -> str:
    return Path(f"/proc/sys/net/ipv6/conf/{NAME}/disable_ipv6").read_text().strip()


def running(pid: int) -> bool:
    """A zombie that nobody reaps in the box has no command line."""
    path = Path(f"/proc/{pid}/cmdline")
    return path.exists() and bool(path.read_bytes())


def text(path: Path) -> str:
    return path.read_text()


def server_status(folder: Path) -> str:
    return Path(f"/proc/{server_pid(folder)}/status").read_text()


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
async def test_conformance(check: conformance.Check, folder: Path) -> None:
    await check(conformance.Subject(BridgeDriver, folder))


async def test_client_gets_a_lease_and_resolves_names(bridge: BridgeDriver, guest: MakeGuest) -> None:
    nic = Reservation("default", "c1", "eth0", MAC, ipv4="10.177.1.77")
    await bridge.reserve([nic])
    with guest() as client:
        assert client.dhcp("-F", "impostor") == "10.177.1.77"
        client.run("ip address add 10.177.1.77/24 dev eth0")
        assert client.run("dig +short +tries=6 @10.177.1.1 c1.test").strip() == "10.177.1.77"
        assert client.run("dig +short +tries=6 @10.177.1.1 impostor.test").strip() == ""
        assert client.run("dig +short +tries=6 @10.177.1.1 _gateway.test").split()[0] == "10.177.1.1"
        with guest("vethother", hwaddr="00:16:3e:44:55:66") as other:
            address = other.dhcp()
            assert address.startswith("10.177.1.")
            assert address != "10.177.1.77"
    leases = {lease.address: lease for lease in await bridge.leases([nic])}
    assert leases["10.177.1.77"].kind == "static"
    assert (leases[address].kind, leases[address].hwaddr) == ("dynamic", "00:16:3e:44:55:66")


async def test_ipv6_guest_configures_itself(bridge: BridgeDriver, guest: MakeGuest, until: Any) -> None:
    await bridge.update({**CONFIG, "bridge.mtu": "1400"}, [])
    with guest() as client:
        await until(lambda: "fd42:177:1:0:216:3eff:fe11:2233" in client.run("ip -6 address show dev eth0"))
        route = client.run("ip -6 route show default")
        assert "proto ra" in route and "mtu 1400" in route


async def test_lease_of_a_nic_that_is_gone_is_released(bridge: BridgeDriver, folder: Path, guest: MakeGuest, until: Any) -> None:
    nic = Reservation("default", "c1", "eth0", MAC)
    await bridge.reserve([nic])
    with guest() as client:
        address = client.dhcp()
    assert address in {lease.address for lease in await bridge.leases([nic])}
    await bridge.reserve([])
    await until(lambda: address not in text(folder / NAME / "dnsmasq.leases"))


SOLICIT = """
import socket, sys, time
packet = bytes.fromhex('01aabbcc' '0001000a0003000100163e112233' '000800020000' '000e0000' '0003000c000000090000000000000000')
end = time.monotonic() + 30
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.settimeout(0.3)
s.bind(('::', 546))
while time.monotonic() < end:
    try:
        s.sendto(packet, ('ff02::1:2', 547, 0, socket.if_nametoindex('eth0')))
        sys.exit(s.recv(1500)[0] != 7)
    except OSError:
        time.sleep(0.1)
sys.exit(2)
"""


async def test_dhcpv6_lease_is_given_and_released(bridge: BridgeDriver, folder: Path, guest: MakeGuest, until: Any) -> None:
    """By a client that asks for a rapid commit: the answer to its first packet is the lease."""
    nic = Reservation("default", "c1", "eth0", MAC, ipv6="fd42:177:1::77")
    await bridge.update({**CONFIG, "ipv6.dhcp.stateful": "true"}, [nic])
    with guest() as client:
        client.python(SOLICIT)
    leases = folder / NAME / "dnsmasq.leases"
    await until(lambda: "fd42:177:1::77" in text(leases))
    await bridge.reserve([])
    await until(lambda: "fd42:177:1::77" not in text(leases))


async def test_made_up_client_ids_get_no_second_address(bridge: BridgeDriver, guest: MakeGuest) -> None:
    with guest() as client:
        first = client.dhcp("-x", "61:00000000")
        others = {client.dhcp("-x", f"61:00{number:06x}", tries=3) for number in range(1, 4)}
    assert first and others <= {"", first}


async def test_server_runs_unprivileged_and_listens_on_the_bridge_only(bridge: BridgeDriver, folder: Path, sh: Shell) -> None:
    assert "Uid:\t0" not in server_status(folder)
    assert "127.0.0.1:53" not in sh("ss -lun")


async def test_rules_are_there_and_others_untouched(make: Make, sh: Shell) -> None:
    sh("nft add table inet stranger; nft add chain inet stranger c; nft add rule inet stranger c counter accept")
    before = sh("nft list table inet stranger")
    driver = make()
    await driver.start([])
    rules = sh(f"nft list table inet atoll.{NAME}")
    assert "ip saddr 10.177.1.0/24 ip daddr != 10.177.1.0/24 masquerade" in rules
    assert "ip6 saddr fd42:177:1::/64 ip6 daddr != fd42:177:1::/64 masquerade" in rules
    assert f'iifname "{NAME}" meta nfproto ipv4 udp dport 67 accept' in rules
    await driver.update({**CONFIG, "ipv4.nat": "false", "ipv4.routing": "false"}, [])
    rules = sh(f"nft list table inet atoll.{NAME}")
    assert "10.177.1.0/24" not in rules
    assert "reject" in rules
    await driver.stop()
    assert sh("nft list table inet stranger") == before
    assert "atoll" not in sh("nft list tables")
    sh("nft delete table inet stranger")


async def test_restart_keeps_the_server_and_the_interface(bridge: BridgeDriver, folder: Path, make: Make) -> None:
    pid, index = server_pid(folder), netlink.link(NAME).index
    started: list[list[str]] = []
    process.observer = lambda argv: started.append(list(argv))
    try:
        await make().start([])
    finally:
        process.observer = None
    assert (server_pid(folder), netlink.link(NAME).index) == (pid, index)
    assert [argv[0] for argv in started] == ["nft"]


async def test_repair_after_flush_and_kill(bridge: BridgeDriver, folder: Path, guest: MakeGuest, sh: Shell, until: Any) -> None:
    assert list(await bridge.repair()) == []
    sh("nft flush ruleset")
    pid = server_pid(folder)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not running(pid))
    done = await bridge.repair()
    assert len(done) == 2
    assert "masquerade" in sh("nft list ruleset")
    sh(f"ip address del 10.177.1.1/24 dev {NAME}")
    sh(f"nft flush chain inet atoll.{NAME} forward")
    assert len(await bridge.repair()) == 2
    assert list(await bridge.repair()) == []
    with guest() as client:
        assert client.dhcp()


async def test_update_changes_subnet_and_routes_and_keeps_strangers(bridge: BridgeDriver, guest: MakeGuest, sh: Shell) -> None:
    sh(f"ip route add 198.51.100.0/24 dev {NAME}")
    config = {**CONFIG, "ipv4.address": "10.177.9.1/24", "ipv4.routes": "192.0.2.0/24,203.0.113.0/24", "bridge.mtu": "1400"}
    with guest() as client:
        await bridge.update(config, [])
        assert client.dhcp().startswith("10.177.9.")
    found = sh(f"ip route show dev {NAME}")
    assert "198.51.100.0/24" in found
    assert "192.0.2.0/24 proto static" in found
    await bridge.update({**config, "ipv4.routes": "203.0.113.0/24"}, [])
    found = sh(f"ip route show dev {NAME}")
    assert "192.0.2.0/24" not in found
    assert "203.0.113.0/24" in found
    assert (await bridge.state()).nic.mtu == 1400


async def test_failed_update_goes_back(bridge: BridgeDriver, guest: MakeGuest) -> None:
    with pytest.raises(AtollError):
        await bridge.update({**CONFIG, "ipv4.address": "10.177.9.1/24", "raw.dnsmasq": "no-such-option"}, [])
    assert {entry[1] for entry in (await bridge.state()).nic.addresses if entry[3] == "global"} == {
        "10.177.1.1",
        "fd42:177:1::1",
    }
    assert list(await bridge.repair()) == []
    with guest() as client:
        assert client.dhcp().startswith("10.177.1.")


async def test_without_addresses_nothing_is_served(bridge: BridgeDriver, folder: Path) -> None:
    pid = server_pid(folder)
    await bridge.update({"ipv4.address": "none", "ipv6.address": "none"}, [])
    assert not running(pid)
    assert not (folder / NAME / "dnsmasq.leases").exists()
    assert not (folder / NAME / "dnsmasq.pid").exists()
    assert disable_ipv6() == "1"
    await bridge.update(CONFIG, [])
    assert disable_ipv6() == "0"


async def test_bridge_of_somebody_else_is_not_taken_over(make: Make, sh: Shell) -> None:
    sh(f"ip link add {NAME} type bridge")
    try:
        with pytest.raises(Conflict):
            await make().start([])
    finally:
        sh(f"ip link delete {NAME}")


async def test_external_interface_and_tunnel(bridge: BridgeDriver, sh: Shell) -> None:
    sh("ip link add ext0 type veth peer name ext1")
    tunnel = {"tunnel.t.protocol": "vxlan", "tunnel.t.local": "10.0.0.1", "tunnel.t.remote": "10.0.0.2", "tunnel.t.id": "7"}
    try:
        await bridge.update({**CONFIG, "bridge.external_interfaces": "ext0", **tunnel}, [])
        assert links.ports(NAME) == [f"{NAME}-t", "ext0"]
        assert (await bridge.state()).nic.mtu == 1400
        await bridge.update(CONFIG, [])
        assert links.ports(NAME) == []
        assert f"{NAME}-t" not in netlink.links()
    finally:
        sh("ip link delete ext0")


async def test_tunnel_that_the_kernel_cannot_make_is_named(bridge: BridgeDriver) -> None:
    gre = {"tunnel.g.protocol": "gre", "tunnel.g.local": "10.0.0.1", "tunnel.g.remote": "10.0.0.2"}
    try:
        await bridge.update({**CONFIG, **gre}, [])
    except Unsupported as error:
        assert "gre" in error.message
    assert list(await bridge.repair()) == []


async def test_hardware_address_is_stable(make: Make) -> None:
    seen = set()
    for _ in range(2):
        driver = make()
        await driver.start([])
        seen.add((await driver.state()).nic.hwaddr)
        await driver.stop()
    assert len(seen) == 1
