from __future__ import annotations

import pytest

from atoll.config import device_table, validate_device
from atoll.config.devices import NICTYPES
from atoll.domain.errors import BadRequest

NIC = {"type": "nic"}
DISK = {"type": "disk"}
PROXY = {"type": "proxy", "listen": "tcp:127.0.0.1:80", "connect": "tcp:127.0.0.1:8080"}

VALID = [
    {"type": "none"},
    NIC | {"nictype": "bridged", "parent": "br0", "vlan": "none", "vlan.tagged": "3,4-6", "user.note": "x"},
    NIC | {"network": "lxdbr0", "ipv4.address": "192.0.2.5", "security.acls": "a"},
    NIC | {"nictype": "p2p", "limits.max": "10Mbit"},
    NIC | {"nictype": "routed", "parent": "eth0", "ipv4.address": "192.0.2.5,192.0.2.6", "ipv6.gateway": "none"},
    NIC | {"nictype": "ipvlan", "parent": "eth0", "mode": "l2", "ipv4.address": "192.0.2.5/24", "ipv4.gateway": "192.0.2.1"},
    NIC | {"nictype": "ovn", "network": "ovn0"},
    DISK | {"path": "/", "pool": "default", "size": "10GB"},
    DISK | {"path": "/mnt", "source": "/srv", "limits.read": "100iops", "propagation": "rshared"},
    DISK | {"path": "/mnt", "source": "vol", "pool": "default", "readonly": "true"},
    DISK | {"path": "/mnt", "source": "ceph:pool/vol", "ceph.user_name": "admin"},
    DISK | {"source": "cloud-init:config"},
    {"type": "unix-char", "path": "/dev/ttyS0", "mode": "0660", "uid": "1000"},
    {"type": "unix-block", "source": "/dev/sda", "major": "8", "minor": "0"},
    {"type": "unix-hotplug", "vendorid": "0bda"},
    {"type": "usb"},
    {"type": "usb", "vendorid": "0bda", "productid": "8153"},
    {"type": "gpu"},
    {"type": "gpu", "gputype": "mdev", "mdev": "i915-GVTg_V5_4", "pci": "0000:00:02.0"},
    {"type": "gpu", "gputype": "mig", "mig.uuid": "74c6a31a-fde5-5c61-973b-70e12346c202"},
    {"type": "infiniband", "nictype": "sriov", "parent": "ib0"},
    PROXY,
    PROXY | {"listen": "tcp:127.0.0.1:80-82", "connect": "tcp:127.0.0.1:90-92"},
    PROXY | {"listen": "tcp:127.0.0.1:80-82", "connect": "unix:/run/x.sock"},
    PROXY | {"listen": "unix:/run/x.sock", "uid": "1", "mode": "0644"},
    PROXY | {"nat": "true", "listen": "tcp:192.0.2.1:80", "connect": "tcp:0.0.0.0:80"},
    {"type": "tpm", "path": "/dev/tpm0", "pathrm": "/dev/tpmrm0"},
    {"type": "pci", "address": "0000:01:00.0"},
]

INVALID = [
    ({}, "Missing device type"),
    ({"type": "floppy"}, "Unsupported device type"),
    ({"type": "none", "path": "/x"}, 'Invalid device option "path"'),
    (NIC, "needs a nictype or a network"),
    (NIC | {"nictype": "magic"}, "Unsupported device type"),
    (NIC | {"nictype": "bridged"}, '"parent" property'),
    (NIC | {"nictype": "macvlan", "parent": "eth0", "limits.max": "1Mbit"}, "Invalid device option"),
    (NIC | {"nictype": "bridged", "network": "lxdbr0"}, "in conjunction with"),
    (NIC | {"network": "lxdbr0", "parent": "eth0"}, "in conjunction with"),
    (NIC | {"nictype": "bridged", "parent": "br0", "vlan": "4096"}, "vlan"),
    (NIC | {"nictype": "bridged", "parent": "br0", "hwaddr": "x"}, "Invalid MAC address"),
    (NIC | {"nictype": "routed", "parent": "eth0", "ipv4.gateway": "192.0.2.254"}, "not one of auto, none"),
    (NIC | {"nictype": "ovn"}, "network"),
    (DISK | {"path": "/"}, '"pool" property'),
    (DISK | {"path": "/", "pool": "p", "source": "/"}, 'may not have a "source"'),
    (DISK | {"path": "/", "pool": "p", "recursive": "true"}, "recursive option"),
    (DISK | {"pool": "p", "source": "v", "recursive": "true"}, "recursive option"),
    (DISK | {"path": "/mnt"}, 'required "source"'),
    (DISK | {"path": "/mnt", "source": "/srv", "size": "1GB"}, "size quota"),
    (DISK | {"path": "/mnt", "source": "/srv", "pool": "p"}, "absolute paths"),
    (DISK | {"path": "/mnt", "source": "v", "pool": "p", "shift": "true"}, '"shift"'),
    (DISK | {"path": "/mnt", "source": "/srv", "ceph.user_name": "a"}, "not of Ceph"),
    (DISK | {"path": "/mnt/../..", "source": "/srv"}, "may not contain"),
    (DISK | {"path": "/mnt", "source": "/srv/../etc"}, "may not contain"),
    (DISK | {"path": "/a\nlxc.hook.start = x", "source": "/srv"}, "line breaks"),
    ({"type": "unix-char"}, 'required "source" or "path"'),
    ({"type": "unix-char", "path": "/dev/x", "major": "8"}, '"major" and "minor"'),
    ({"type": "unix-char", "path": "/dev/x", "mode": "4755"}, "Invalid file mode"),
    ({"type": "unix-hotplug"}, "vendorid or a productid"),
    ({"type": "gpu", "pci": "0000:00:02.0", "id": "0"}, 'when "pci" is set'),
    ({"type": "gpu", "gputype": "mdev"}, '"mdev" property'),
    ({"type": "gpu", "gputype": "mig"}, '"mig.gi" property'),
    ({"type": "gpu", "gputype": "magic"}, "Unsupported device type"),
    ({"type": "infiniband", "nictype": "physical"}, '"parent" property'),
    ({"type": "proxy", "listen": "tcp:127.0.0.1:80"}, '"connect" property'),
    (PROXY | {"connect": "tcp:localhost:80"}, "Not an IPv4 address"),
    (PROXY | {"listen": "tcp:127.0.0.1:80-81", "connect": "tcp:127.0.0.1:80-82"}, "Mismatch"),
    (PROXY | {"uid": "1"}, "non-abstract unix sockets"),
    (PROXY | {"nat": "true", "listen": "tcp:0.0.0.0:80"}, "wildcard address"),
    (PROXY | {"nat": "true", "bind": "instance"}, "host-bound"),
    (PROXY | {"nat": "true", "connect": "udp:127.0.0.1:80"}, "NAT mode"),
    (PROXY | {"nat": "true", "connect": "tcp:[::]:80"}, "IPv4 and IPv6"),
    (PROXY | {"nat": "true", "proxy_protocol": "true"}, "PROXY header"),
    ({"type": "pci"}, '"address" property'),
]


@pytest.mark.parametrize("device", VALID)
def test_valid(device: dict[str, str]) -> None:
    validate_device("dev", device)


@pytest.mark.parametrize(("device", "message"), INVALID)
def test_invalid(device: dict[str, str], message: str) -> None:
    with pytest.raises(BadRequest, match=message.replace("(", r"\(")):
        validate_device("dev", device)


@pytest.mark.parametrize("name", ["", "..", "../a", "-rf", "a\nb", "x" * 65])
def test_bad_names(name: str) -> None:
    with pytest.raises(BadRequest):
        validate_device(name, {"type": "none"})


def test_the_network_tells_what_the_device_does_not() -> None:
    validate_device("eth0", {"type": "nic", "network": "net"}, nictype="macvlan")
    with pytest.raises(BadRequest, match="Invalid device option"):
        validate_device("eth0", {"type": "nic", "network": "net", "limits.max": "1Mbit"}, nictype="macvlan")
    with pytest.raises(BadRequest, match='Cannot use "vlan"'):
        validate_device("eth0", {"type": "nic", "network": "net", "vlan": "5"}, nictype="macvlan")


def test_every_nictype_has_a_table_with_its_type_and_user_keys() -> None:
    for nictype in NICTYPES:
        table = device_table("nic", nictype)
        assert all(table.find(name) for name in ("type", "nictype", "name", "user.x"))
