"""MAC addresses that NICs have before their first start."""

from __future__ import annotations

from atoll.domain import macs
from atoll.services.instances import nic_addresses
from atoll.services.instances.expand import Expanded

NIC, DISK = {"type": "nic"}, {"type": "disk"}
OWN = {**NIC, "hwaddr": "00:16:3e:00:00:01"}
KEPT = {"volatile.eth0.hwaddr": "00:16:3e:00:00:02"}


def test_each_nic_without_an_address_gets_one() -> None:
    found = nic_addresses.initial(Expanded(KEPT, {"eth0": NIC, "eth1": NIC, "eth2": NIC, "eth3": OWN, "data": DISK}), macs.random)
    assert set(found) == {"volatile.eth1.hwaddr", "volatile.eth2.hwaddr"}
    assert len(set(found.values())) == 2


def test_an_address_goes_with_its_nic() -> None:
    gone = {"volatile.eth0.hwaddr": ""}
    assert nic_addresses.after({"eth0": NIC}, Expanded(KEPT, {}), macs.random) == gone
    assert nic_addresses.after({"eth0": NIC}, Expanded(KEPT, {"eth0": DISK}), macs.random) == gone
    assert nic_addresses.after({"eth0": NIC}, Expanded(KEPT, {"eth0": NIC}), macs.random) == {}
    assert nic_addresses.after({"eth0": NIC}, Expanded(KEPT, {"eth0": OWN}), macs.random) == gone
    assert nic_addresses.after({"eth0": OWN}, Expanded({}, {}), macs.random) == {}
