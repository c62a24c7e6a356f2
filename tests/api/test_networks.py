"""Managed networks."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.domain import macs

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
    assert {"addresses", "bond", "bridge", "counters", "hwaddr", "mtu", "ovn", "state", "type", "vlan"} == set(state)
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


async def test_the_address_of_a_nic_is_known_before_the_first_start(net: Any) -> None:
    """Its name server and its DHCP server are told of it, too; it goes with the NIC."""
    nic = {"type": "nic", "network": "atolltest0"}
    await net.create("c1", devices={"eth0": {**nic, "ipv4.address": "10.7.7.7"}})
    first = (await net.get("/1.0/instances/c1"))["config"]["volatile.eth0.hwaddr"]
    assert first.startswith("00:16:3e:")
    lease = {"hostname": "c1", "hwaddr": first, "address": "10.7.7.7", "type": "static", "location": "none"}
    assert lease in await net.get(f"{NET}/leases")
    fixed = {**nic, "vlan": "2", "hwaddr": "00:16:3e:00:00:01"}
    await net.do("PATCH", "/1.0/instances/c1", {"devices": {"eth1": {**nic, "vlan": "1"}, "eth2": fixed}})
    changed = await net.get("/1.0/instances/c1")
    assert changed["config"]["volatile.eth0.hwaddr"] == first != changed["config"]["volatile.eth1.hwaddr"]
    assert "volatile.eth2.hwaddr" not in changed["config"]
    await net.do("PUT", "/1.0/instances/c1", {**changed, "devices": {"eth1": nic}})
    left = {key for key in (await net.get("/1.0/instances/c1"))["config"] if key.endswith(".hwaddr")}
    assert left == {"volatile.eth1.hwaddr"}
    assert lease not in await net.get(f"{NET}/leases")


async def test_a_new_address_is_no_other_nics(net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By chance it might be: of a thousand NICs two would have one, in one case of thirty."""
    chosen = iter(["00:16:3e:00:00:01", "00:16:3e:00:00:01", "00:16:3e:00:00:02"])
    monkeypatch.setattr(macs, "random", lambda: next(chosen))
    for name in ("c1", "c2"):
        await net.create(name, devices={"eth0": {"type": "nic", "network": "atolltest0"}})
    assert (await net.get("/1.0/instances/c2"))["config"]["volatile.eth0.hwaddr"] == "00:16:3e:00:00:02"


async def test_the_address_of_a_nic_that_a_profile_brings(net: Any) -> None:
    await net.create("c1")
    nic = {"type": "nic", "network": "atolltest0", "ipv4.address": "10.7.7.8"}
    await net.do("PATCH", "/1.0/profiles/default", {"devices": {"eth9": nic}})
    address = (await net.get("/1.0/instances/c1"))["config"]["volatile.eth9.hwaddr"]
    assert address in [lease["hwaddr"] for lease in await net.get(f"{NET}/leases")]


@pytest.mark.parametrize(
    ("device", "said"),
    [
        (
            {"ipv4.address": "10.7.8.7"},
            'Device IP address "10.7.8.7" not within network "atolltest0" subnet (which is 10.7.7.0/24)',
        ),
        ({"ipv4.address": "10.7.7.1"}, 'IP address "10.7.7.1" is assigned to parent managed network device "atolltest0"'),
        (
            {"ipv6.address": "fd42::7"},
            'Cannot specify "ipv6.address" when DHCP or "ipv6.dhcp.stateful" are disabled (unless using security.ipv6_filtering) '
            'on network "atolltest0"',
        ),
    ],
)
async def test_an_address_that_the_network_cannot_give_is_refused(net: Any, device: dict[str, str], said: str) -> None:
    """To instances and to profiles, also where only the bridge is named. Where DHCP is off, a NIC may be held to any."""
    nic = {"type": "nic", "network": "atolltest0"}
    bridged = {"type": "nic", "nictype": "bridged", "parent": "atolltest0"}
    await net.create("c1", devices={"eth0": nic})
    for place, wrong in (("instances/c1", nic), ("profiles/default", nic), ("instances/c1", bridged)):
        assert await net.refused("PATCH", f"/1.0/{place}", {"devices": {"eth0": {**wrong, **device}}}) == (400, said)
    held = {"ipv6.address": "fd42::7", "security.ipv6_filtering": "true"}
    await net.do("PATCH", "/1.0/instances/c1", {"devices": {"eth0": {**nic, **held}}})


STATIC = {"type": "nic", "network": "atolltest0", "ipv4.address": "10.7.7.9"}
TAKEN = 'IP address "10.7.7.9" already defined on another NIC'


async def _served(net: Any) -> list[str]:
    return [lease["hostname"] for lease in await net.get(f"{NET}/leases") if lease["address"] == "10.7.7.9"]


async def test_an_address_is_one_nics(net: Any) -> None:
    """A change may not give it to another; who has it by its creation does not start, and is served once the other is gone."""
    await net.create("c1", devices={"eth0": STATIC})
    await net.create("c2")
    assert await net.refused("PATCH", "/1.0/instances/c2", {"devices": {"eth0": STATIC}}) == (
        409,
        f'Failed add validation for device "eth0": {TAKEN}',
    )
    assert (await net.get("/1.0/instances/c2"))["devices"] == {}
    await net.do("POST", "/1.0/instances", {"name": "c3", "source": {"type": "copy", "source": "c1"}})
    assert await _served(net) == ["c1"]
    _, said = await net.refused("PUT", "/1.0/instances/c3/state", {"action": "start"})
    assert said == f'Failed start validation for device "eth0": {TAKEN}'
    await net.restart()
    assert await _served(net) == ["c1"]
    await net.do("DELETE", "/1.0/instances/c1")
    assert await _served(net) == ["c3"]
    _, said = await net.refused("PUT", "/1.0/instances/c3/state", {"action": "start"})
    assert "parent interface" in said  # all that hinders it now: a network of the sim kind has none


async def test_a_snapshot_in_conflict_can_be_restored(net: Any) -> None:
    await net.create("c1", devices={"eth0": STATIC})
    await net.do("POST", "/1.0/instances/c1/snapshots", {"name": "s"})
    await net.do("PATCH", "/1.0/instances/c1", {"devices": {"eth0": {**STATIC, "ipv4.address": "10.7.7.8"}}})
    await net.create("c2", devices={"eth0": STATIC})
    await net.do("PUT", "/1.0/instances/c1", {"restore": "s"})
    assert (await net.get("/1.0/instances/c1"))["devices"]["eth0"] == STATIC
    assert await _served(net) == ["c2"]


async def test_a_name_is_one_nics_where_dns_knows_it(net: Any) -> None:
    nic = {"type": "nic", "network": "atolltest0"}
    await net.create("c1", devices={"eth0": nic})
    refused = await net.refused("PATCH", "/1.0/instances/c1", {"devices": {"eth1": nic}})
    assert refused == (409, 'Failed add validation for device "eth1": Instance DNS name "c1" already used on network')
    await net.do("PATCH", NET, {"config": {"dns.mode": "none"}})
    await net.do("PATCH", "/1.0/instances/c1", {"devices": {"eth1": nic}})


async def test_a_profile_gives_an_address_to_one_of_its_instances(net: Any) -> None:
    await net.create("c1")
    await net.create("c2")
    status, content = await net.call("PATCH", "/1.0/profiles/default", {"devices": {"eth9": STATIC}})
    said = content["error"]
    assert status == 500 and f'Instance: c2: Failed add validation for device "eth9": {TAKEN}' in said and "c1" not in said
    assert await _served(net) == ["c1"]


async def test_an_empty_value_of_a_device_is_none(net: Any) -> None:
    """So clients unset a key; it is as if it had never been said."""
    emptied = {"type": "nic", "network": "atolltest0", "nictype": "", "parent": "", "mtu": "", "name": "eth0"}
    kept = {"type": "nic", "network": "atolltest0", "name": "eth0"}
    await net.do("POST", "/1.0/profiles", {"name": "p", "devices": {"eth0": emptied}})
    assert (await net.get("/1.0/profiles/p"))["devices"] == {"eth0": kept}
    await net.do("PATCH", "/1.0/profiles/default", {"devices": {"eth0": emptied}})
    assert (await net.get("/1.0/profiles/default"))["devices"]["eth0"] == kept
    await net.create("c1", devices={"eth0": emptied})
    assert (await net.get("/1.0/instances/c1"))["devices"] == {"eth0": kept}
    await net.do("PATCH", "/1.0/instances/c1", {"devices": {"eth0": {**emptied, "name": ""}}})
    assert (await net.get("/1.0/instances/c1"))["devices"]["eth0"] == {"type": "nic", "network": "atolltest0"}
