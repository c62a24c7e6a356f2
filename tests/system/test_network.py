"""The bridge that `init --auto` makes: addresses, names, the way out, and that a restart disturbs none of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from ipaddress import IPv4Interface

import audit
import pytest
from box import Daemon, wait_until

pytestmark = [pytest.mark.system, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

BRIDGE = "atollbr0"
OUTSIDE = "192.0.2.2"


@pytest.fixture
def two(machines: Daemon) -> Daemon:
    """Two instances with addresses."""
    for name in ("one", "two"):
        machines.run("atoll", "launch", "tiny", name)
    for name in ("one", "two"):
        machines.address(name)
    return machines


def subnet(daemon: Daemon) -> IPv4Interface:
    """The bridge's own address."""
    return IPv4Interface(daemon.query(f"/1.0/networks/{BRIDGE}")["config"]["ipv4.address"])


def ping(daemon: Daemon, name: str, target: str, *, seconds: int = 20) -> bool:
    """Whether the target answers an instance in time."""
    return daemon.try_("atoll", "exec", name, "--", "ping", "-c", "1", "-W", str(seconds), target).returncode == 0


def test_everybody_reaches_everybody_by_name(two: Daemon) -> None:
    assert ping(two, "one", "two")
    assert ping(two, "two", "one.lxd")
    assert ping(two, "one", "_gateway")
    assert ping(two, "one", str(subnet(two).ip))
    assert two.try_("ping", "-V").returncode or two.try_("ping", "-c", "1", "-W", "20", two.address("one")).returncode == 0
    assert not ping(two, "one", "three")


def test_leases(two: Daemon) -> None:
    leases = {row["hostname"]: row for row in two.query(f"/1.0/networks/{BRIDGE}/leases") if ":" not in row["address"]}
    assert leases["one"]["address"] == two.address("one")
    assert leases["two"]["type"] == "dynamic"
    assert leases[f"{BRIDGE}.gw"]["address"] == str(subnet(two).ip)


def test_a_fixed_address(machines: Daemon) -> None:
    address = str(subnet(machines).network[77])
    machines.run("atoll", "init", "tiny", "one")
    machines.run("atoll", "config", "device", "override", "one", "eth0", f"ipv4.address={address}")
    machines.run("atoll", "start", "one")
    assert machines.address("one") == address
    (lease,) = (row for row in machines.query(f"/1.0/networks/{BRIDGE}/leases") if row["address"] == address)
    assert (lease["hostname"], lease["type"]) == ("one", "static")


def test_ipv6_by_advertisement(two: Daemon) -> None:
    network = two.query(f"/1.0/networks/{BRIDGE}")["config"]["ipv6.address"].partition("::")[0]
    assert two.address("one", version=6).startswith(network)


@pytest.fixture
def outside(daemon: Daemon) -> Iterator[None]:
    """A host beyond the box, which has no way back to a bridge's subnet."""
    script = f"""
        ip netns add outside
        ip link add up0 type veth peer name eth0 netns outside
        ip address add 192.0.2.1/24 dev up0
        ip link set up0 up
        ip -n outside address add {OUTSIDE}/24 dev eth0
        ip -n outside link set eth0 up
    """
    daemon.run("sh", "-ec", script)
    yield
    daemon.run("ip", "netns", "delete", "outside")
    wait_until(lambda: daemon.try_("ip", "link", "show", "up0").returncode, "the host beyond is gone")


def test_the_way_out(two: Daemon, outside: None) -> None:
    """Only translation lets the answer find its way."""
    assert ping(two, "one", OUTSIDE)
    two.run("atoll", "network", "set", BRIDGE, "ipv4.nat", "false")
    assert not ping(two, "one", OUTSIDE, seconds=2)
    two.run("atoll", "network", "set", BRIDGE, "ipv4.nat", "true")
    assert ping(two, "two", OUTSIDE)


@pytest.mark.parametrize("how", ["terminate", "kill"])
def test_a_restart_is_not_felt(two: Daemon, how: str) -> None:
    def look() -> object:
        (link,) = json.loads(two.run("ip", "-json", "link", "show", BRIDGE))
        servers = two.run("pgrep", "-f", f"dnsmasq --conf-file={two.dir}").split()
        return link["ifindex"], servers, two.address("one"), two.run("nft", "list", "ruleset")

    before = look()
    getattr(two, how)()
    assert two.try_("pgrep", "-f", f"dnsmasq --conf-file={two.dir}").returncode == 0
    two.start()
    assert look() == before
    assert ping(two, "one", "two")
    audit.check(two)


def test_another_network(machines: Daemon) -> None:
    machines.run("atoll", "network", "create", "br1", "ipv4.address=10.77.0.1/24", "ipv6.address=none")
    machines.run("atoll", "launch", "tiny", "one", "--network", "br1")
    assert machines.address("one").startswith("10.77.0.")
    assert machines.try_("atoll", "network", "delete", "br1").returncode == 1
    machines.run("atoll", "delete", "--force", "one")
    machines.run("atoll", "network", "delete", "br1")
    assert machines.try_("ip", "link", "show", "br1").returncode
    assert "br1" not in machines.run("nft", "list", "ruleset")
