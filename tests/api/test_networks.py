"""Managed networks."""

from __future__ import annotations

from typing import Any

import pytest

NETWORKS = "/1.0/networks"
NET = f"{NETWORKS}/atolltest0"
CONFIG = {"ipv4.address": "10.7.7.1/24", "ipv6.address": "none"}


@pytest.fixture
async def net(app: Any) -> Any:
    await app.do("POST", NETWORKS, {"name": "atolltest0", "config": CONFIG})
    return app


async def test_life(net: Any) -> None:
    found = await net.get(NET)
    assert (found["name"], found["type"], found["managed"], found["status"]) == ("atolltest0", "bridge", True, "Created")
    assert found["config"]["ipv4.address"] == "10.7.7.1/24" and found["used_by"] == [] and found["locations"] == ["none"]
    assert NET in await net.get(NETWORKS)
    await net.do("PATCH", NET, {"config": {"ipv4.nat": "true"}, "description": "d"})
    found = await net.get(NET)
    assert (found["config"]["ipv4.nat"], found["description"]) == ("true", "d")
    await net.do("POST", NET, {"name": "atolltest1"})
    await net.do("DELETE", f"{NETWORKS}/atolltest1")
    assert not [url for url in await net.get(NETWORKS) if "atolltest" in url]


async def test_addresses_are_chosen(app: Any) -> None:
    await app.do("POST", NETWORKS, {"name": "atolltest0"})
    config = (await app.get(NET))["config"]
    assert config["ipv4.address"].endswith("/24") and config["ipv4.nat"] == "true"


async def test_state_and_leases(net: Any) -> None:
    state = await net.get(f"{NET}/state")
    assert {"addresses", "counters", "hwaddr", "mtu", "state", "type"} <= set(state)
    assert isinstance(await net.get(f"{NET}/leases"), list)


async def test_a_used_network_stays(net: Any) -> None:
    await net.create("c1", devices={"eth0": {"type": "nic", "network": "atolltest0"}})
    assert (await net.get(NET))["used_by"] == ["/1.0/instances/c1"]
    assert (await net.refused("DELETE", NET))[0] == 400
    assert (await net.refused("POST", NET, {"name": "atolltest1"}))[0] == 400
    await net.do("DELETE", "/1.0/instances/c1")
    await net.do("DELETE", NET)


async def test_what_is_refused(net: Any) -> None:
    tag = await net.etag(NET)
    await net.do("PATCH", NET, {"description": "x"}, headers={"If-Match": tag})
    assert (await net.refused("PATCH", NET, {"description": "y"}, headers={"If-Match": tag}))[0] == 412
    assert (await net.refused("POST", NETWORKS, {"name": "atolltest0"}))[0] in (400, 409)
    assert (await net.refused("POST", NETWORKS, {"name": "lo"}))[0] in (400, 409)
    assert (await net.refused("POST", NETWORKS, {"name": "atolltest1", "type": "ovn"}))[0] in (400, 501)
    assert (await net.refused("POST", NETWORKS, {"name": "atolltest1", "config": {"no": "1"}}))[0] == 400
    assert (await net.refused("POST", NETWORKS, {"name": "atolltest1", "config": {"ipv4.address": "10.1.1"}}))[0] == 400
    assert (await net.refused("PUT", NET, {"config": {"ipv4.address": "nonsense"}}))[0] == 400
    assert (await net.refused("PATCH", f"{NETWORKS}/lo", {"description": "x"}))[0] == 400
    assert (await net.refused("DELETE", f"{NETWORKS}/lo"))[0] in (400, 404)
    assert (await net.refused("GET", f"{NETWORKS}/absent0"))[0] == 404
    assert (await net.refused("GET", f"{NETWORKS}/absent0/state"))[0] == 404
    assert (await net.refused("GET", f"{NETWORKS}/absent0/leases"))[0] == 404
    nic = {"eth0": {"type": "nic", "network": "absent0"}}
    assert (await net.refused("POST", "/1.0/instances", {"name": "c1", "source": {"type": "none"}, "devices": nic}))[0] in (
        400,
        404,
    )
    assert CONFIG.items() <= (await net.get(NET))["config"].items()
