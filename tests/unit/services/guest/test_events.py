"""What a guest is told of a change."""

from __future__ import annotations

from atoll.drivers.instance.contract import MachineId
from atoll.services.guest.events import GuestEvents, GuestEventType, differences
from atoll.services.instances.expand import Expanded

C1, C2 = MachineId("default", "c1"), MachineId("default", "c2")
NIC = {"type": "nic", "name": "eth0"}
ALL = frozenset(GuestEventType)


def test_differences_in_order() -> None:
    old = Expanded({"user.gone": "x", "user.same": "1", "limits.cpu": "1"}, {"a": NIC, "b": NIC, "same": NIC})
    new = Expanded({"user.new": "y", "user.same": "1", "limits.cpu": "2"}, {"b": {**NIC, "mtu": "1400"}, "c": NIC, "same": NIC})
    assert [dict(event.metadata) for event in differences(old, new)] == [
        {"key": "user.gone", "old_value": "x", "value": ""},
        {"key": "user.new", "old_value": "", "value": "y"},
        {"name": "a", "action": "removed", "config": NIC},
        {"name": "b", "action": "updated", "config": {**NIC, "mtu": "1400"}},
        {"name": "c", "action": "added", "config": NIC},
    ]


async def test_each_hears_of_itself_and_of_what_it_asked_for() -> None:
    events = GuestEvents()
    mine, devices, other = events.listen(C1, ALL), events.listen(C1, frozenset({GuestEventType.DEVICE})), events.listen(C2, ALL)
    events.changed(C1, Expanded({}, {}), Expanded({"user.a": "b"}, {"n": NIC}))
    heard = [await mine.next(), await mine.next(), await devices.next()]
    assert [event and event.type.value for event in heard] == ["config", "device", "device"]
    await events.close()
    assert [await each.next() for each in (mine, devices, other)] == [None, None, None]
    events.forget(other)  # once more does no harm


async def test_who_has_it_no_more_is_hung_up_on() -> None:
    events = GuestEvents()
    listener = events.listen(C1, ALL)
    events.changed(C1, Expanded({}, {}), Expanded({"user.a": "b", "security.devlxd": "false"}, {}))
    assert await listener.next() is None
